//! The proxies that are compared, and how each is started.

use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::BoxError;

use super::args::Args;
use super::build;
use super::check;
use super::lab::{self, Lab, MANY, PUBLIC_HOST, Services};
use super::process::{self, Running};
use super::versions::Versions;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Ours,
    /// The library in a program of its own, on the server of the binary.
    Embedded,
    /// The same on hyper's server, and on a runtime that all workers share.
    EmbeddedHyper,
    /// The one of Debian stable.
    Nginx,
    /// The newest one that Debian has, of nginx's stable branch.
    NginxCurrent,
    /// The mainline branch, linked statically with musl.
    NginxMainline,
    /// The one of Debian stable.
    Haproxy,
    /// The newest one that Debian has.
    HaproxyCurrent,
    Envoy,
    Pingora,
    AxumReverseProxy,
    LegacyClient,
    FloorHyper,
    FloorBytes,
    /// No proxy.
    Direct,
}

impl Kind {
    pub(crate) const ALL: [Self; 15] = [
        Self::Ours,
        Self::Embedded,
        Self::EmbeddedHyper,
        Self::Nginx,
        Self::NginxCurrent,
        Self::NginxMainline,
        Self::Haproxy,
        Self::HaproxyCurrent,
        Self::Envoy,
        Self::Pingora,
        Self::AxumReverseProxy,
        Self::LegacyClient,
        Self::FloorHyper,
        Self::FloorBytes,
        Self::Direct,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Embedded => "embedded",
            Self::EmbeddedHyper => "embedded-hyper",
            Self::Nginx => "nginx",
            Self::NginxCurrent => "nginx-current",
            Self::NginxMainline => "nginx-mainline",
            Self::Haproxy => "haproxy",
            Self::HaproxyCurrent => "haproxy-current",
            Self::Envoy => "envoy",
            Self::Pingora => "pingora",
            Self::AxumReverseProxy => "axum-reverse-proxy",
            Self::LegacyClient => "legacy-client",
            Self::FloorHyper => "floor-hyper",
            Self::FloorBytes => "floor-bytes",
            Self::Direct => "direct",
        }
    }

    pub(crate) fn parse(name: &str) -> Result<Self, BoxError> {
        let kind = Self::ALL.into_iter().find(|kind| kind.name() == name);
        kind.ok_or_else(|| format!("there is no {name} to compare with").into())
    }

    /// Whether it does the work of a gateway, or is a floor.
    pub(crate) fn is_floor(self) -> bool {
        matches!(self, Self::FloorHyper | Self::FloorBytes | Self::Direct)
    }
}

/// A proxy in a scenario, with its workers and routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) kind: Kind,
    pub(crate) workers: usize,
    pub(crate) routes: Routes,
}

/// How many routes there are, each to a Service of its own, and how many of them are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Routes {
    One,
    /// A thousand, of which one is in use: what a large table costs.
    ManyOneUsed,
    /// A thousand, all in use: what it costs to have connections to so many.
    ManyAllUsed,
    /// A thousand, all in use, whose Services are at one address: the same without the sockets.
    ManyTogether,
}

impl Routes {
    pub(crate) fn services(self) -> Services {
        match self {
            Self::One => Services::One,
            Self::ManyOneUsed | Self::ManyAllUsed => Services::Apart,
            Self::ManyTogether => Services::Together,
        }
    }
}

impl Subject {
    pub(crate) const fn of(kind: Kind) -> Self {
        Self {
            kind,
            workers: 1,
            routes: Routes::One,
        }
    }

    pub(crate) const fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    pub(crate) const fn routes(mut self, routes: Routes) -> Self {
        self.routes = routes;
        self
    }

    /// Its name in rows and tables.
    pub(crate) fn label(&self) -> String {
        let mut label = self.kind.name().to_owned();
        if self.workers > 1 {
            label.push_str(" ×2");
        }
        label.push_str(match self.routes {
            Routes::One => "",
            Routes::ManyOneUsed => " 1 of 1000",
            Routes::ManyAllUsed => " 1000",
            Routes::ManyTogether => " 1000 on one address",
        });
        label
    }
}

/// The setup of a proxy.
pub(crate) struct Setup<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) listen: SocketAddr,
    pub(crate) workers: usize,
    pub(crate) h2: bool,
    pub(crate) h2_origin: bool,
    pub(crate) websocket: bool,
    pub(crate) services: Services,
}

impl Setup<'_> {
    /// The origin of one of many Services.
    pub(crate) fn origin_of(&self, number: usize) -> SocketAddr {
        let address = self.services.address_of(number);
        SocketAddr::from((address, self.lab.origin.port()))
    }

    /// The origin of the requests.
    pub(crate) fn origin(&self) -> SocketAddr {
        match (self.websocket, self.h2_origin) {
            (true, _) => self.lab.echo,
            (false, true) => self.lab.origin_h2,
            (false, false) => self.lab.origin,
        }
    }
}

/// The programs, found once.
pub(crate) struct Programs {
    ours: Option<PathBuf>,
    embedded: Option<PathBuf>,
    peers: Option<PathBuf>,
    envoy: Option<PathBuf>,
    nginx_current: Option<PathBuf>,
    nginx_mainline: Option<PathBuf>,
    haproxy_current: Option<PathBuf>,
    versions: Versions,
}

impl Programs {
    pub(crate) fn find(args: &Args, kinds: &[Kind]) -> Result<Self, BoxError> {
        use Kind as K;
        let has = |kind| kinds.contains(&kind);
        let from_peers = [
            K::EmbeddedHyper,
            K::Pingora,
            K::AxumReverseProxy,
            K::LegacyClient,
            K::FloorHyper,
            K::FloorBytes,
        ];
        let mut programs = Self {
            ours: has(K::Ours).then(|| build::ours(args)).transpose()?,
            embedded: has(K::Embedded)
                .then(|| build::embedded(args))
                .transpose()?,
            peers: from_peers
                .into_iter()
                .any(has)
                .then(|| build::peers(args))
                .transpose()?,
            envoy: has(K::Envoy).then(|| build::envoy(args)).transpose()?,
            nginx_current: has(K::NginxCurrent)
                .then(|| build::nginx_current(args))
                .transpose()?,
            nginx_mainline: has(K::NginxMainline)
                .then(|| build::nginx_mainline(args))
                .transpose()?,
            haproxy_current: has(K::HaproxyCurrent)
                .then(|| build::haproxy_current(args))
                .transpose()?,
            versions: Versions::default(),
        };
        programs.versions = Versions::ask(kinds, |kind| match kind {
            K::Nginx => Some("nginx".into()),
            K::Haproxy => Some("haproxy".into()),
            K::NginxCurrent => programs.nginx_current.clone(),
            K::NginxMainline => programs.nginx_mainline.clone(),
            K::HaproxyCurrent => programs.haproxy_current.clone(),
            K::Envoy => programs.envoy.clone(),
            _ => None,
        })?;
        Ok(programs)
    }

    pub(crate) fn versions(&self) -> &Versions {
        &self.versions
    }

    /// The program of a proxy and its arguments; writes what files it takes.
    pub(crate) fn command(
        &self,
        kind: Kind,
        setup: &Setup<'_>,
    ) -> Result<(OsString, Vec<OsString>), BoxError> {
        let dir = &setup.lab.dir;
        let name = format!("{}-{}", kind.name(), setup.listen.port());
        let write = |suffix: &str, text: String| -> Result<OsString, BoxError> {
            let file = dir.join(format!("{name}.{suffix}"));
            fs::write(&file, text)?;
            Ok(file.into())
        };
        let found = |program: &Option<PathBuf>| match program {
            Some(program) => Ok(OsString::from(program)),
            None => Err(format!("{} was not looked for", kind.name())),
        };
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        Ok(match kind {
            Kind::Ours => (found(&self.ours)?, ours(setup)),
            Kind::Embedded => {
                if setup.services != Services::One || setup.h2_origin {
                    return Err("is set up for one Service of HTTP/1".into());
                }
                let args = [
                    setup.listen.to_string(),
                    setup.lab.dns.to_string(),
                    setup.origin().port().to_string(),
                    setup.workers.to_string(),
                ];
                (found(&self.embedded)?, args.map(OsString::from).into())
            }
            Kind::Nginx | Kind::NginxCurrent | Kind::NginxMainline => {
                let conf = write("conf", super::configs::nginx(&name, kind, setup))?;
                let mut args = words(&["-e", "stderr", "-p"]);
                args.extend([dir.into(), "-c".into(), conf]);
                let program = match kind {
                    Kind::NginxCurrent => found(&self.nginx_current)?,
                    Kind::NginxMainline => found(&self.nginx_mainline)?,
                    _ => "nginx".into(),
                };
                (program, args)
            }
            Kind::Haproxy | Kind::HaproxyCurrent => {
                let conf = write("cfg", super::configs::haproxy(setup))?;
                let program = match kind {
                    Kind::HaproxyCurrent => found(&self.haproxy_current)?,
                    _ => "haproxy".into(),
                };
                (program, vec!["-q".into(), "-f".into(), conf])
            }
            Kind::Envoy => {
                let conf = write("yaml", super::configs::envoy(setup))?;
                let mut args = words(&["--disable-hot-restart", "-l", "error", "--concurrency"]);
                args.extend([setup.workers.to_string().into(), "-c".into(), conf]);
                (found(&self.envoy)?, args)
            }
            Kind::Direct => return Err("there is no program without a proxy".into()),
            peer => {
                let mut args = vec![peer.name().into(), setup.listen.to_string().into()];
                args.push(setup.origin().to_string().into());
                args.push(format!("workers={}", setup.workers).into());
                let many = setup.services == Services::Apart;
                args.extend(many.then(|| format!("origins={MANY}").into()));
                args.extend(setup.h2.then(|| "h2".into()));
                args.extend(setup.h2_origin.then(|| "h2-origin".into()));
                (found(&self.peers)?, args)
            }
        })
    }

    /// Starts a proxy on some cores, and checks that it does the work.
    pub(crate) fn start(
        &self,
        kind: Kind,
        setup: &Setup<'_>,
        cores: &str,
    ) -> Result<Running, BoxError> {
        let (program, args) = self.command(kind, setup)?;
        let mut command = process::on_cores(cores, program);
        command.args(args);
        let name = format!("{}-{}", kind.name(), setup.listen.port());
        let mut running = Running::start(&name, &mut command, &setup.lab.dir)?;
        running.wait_until(Duration::from_secs(15), || check::check(kind, setup))?;
        Ok(running)
    }
}

fn ours(setup: &Setup<'_>) -> Vec<OsString> {
    let mut args = vec!["serve".to_owned()];
    let mut option = |name: &str, value: String| args.extend([name.to_owned(), value]);
    option("--listen", setup.listen.to_string());
    option("--dns", setup.lab.dns.to_string());
    option("--upstream-cidr", "127.0.0.0/8".to_owned());
    option("--mesh", "istio-sidecar".to_owned());
    option("--workers", setup.workers.to_string());
    option("--shutdown-timeout", "1s".to_owned());
    option("--log", "warn".to_owned());
    if setup.h2_origin {
        option("--upstream-protocol", "h2c".to_owned());
    }
    let port = setup.origin().port();
    if setup.services != Services::One {
        for number in 0..MANY {
            let (host, name) = (lab::host_of(number), setup.services.name_of(number));
            option("--route", format!("{host}/={name}.default:{port}"));
        }
    } else {
        option("--route", format!("{PUBLIC_HOST}/=web.default:{port}"));
    }
    args.into_iter().map(Into::into).collect()
}

/// The address a new proxy gets.
pub(crate) fn listen() -> Result<SocketAddr, BoxError> {
    let port = lab::free_port(Ipv4Addr::LOCALHOST)?;
    Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}
