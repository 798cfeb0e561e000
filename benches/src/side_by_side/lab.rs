//! The surroundings of the proxies: the origin, cluster DNS, a directory.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mesh_ingress_core::{ClusterDomain, ServiceRef};
use mesh_ingress_testkit::DnsServer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Runtime;

use crate::BoxError;

use super::configs;
use super::interrupt;
use super::process::{self, Running};

/// The ClusterIP of the one Service.
pub(crate) const CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 7);
/// The host that clients ask for.
pub(crate) const PUBLIC_HOST: &str = "shop.example.com";
/// The host that the origin must get.
pub(crate) const VHOST: &str = "web.default.svc.cluster.local";
/// Routes and Services of S10.
pub(crate) const MANY: usize = 1000;
/// The bound of every single answer.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The surroundings of one scenario.
pub(crate) struct Lab {
    pub(crate) dir: PathBuf,
    pub(crate) dns: SocketAddr,
    /// HTTP/1.1.
    pub(crate) origin: SocketAddr,
    /// HTTP/2 without TLS.
    pub(crate) origin_h2: SocketAddr,
    /// Upgrades, then sends back what it gets.
    pub(crate) echo: SocketAddr,
    /// The head of the request that came there last.
    upgrade: Arc<Mutex<String>>,
    _nginx: Running,
    _dns: DnsServer,
    /// Runs DNS and the echo origin, on a thread beside the load.
    _runtime: Runtime,
}

impl Lab {
    /// Starts everything; the origin on `cores`, at the addresses of all Services if `many`.
    pub(crate) fn start(cores: &str, many: bool) -> Result<Self, BoxError> {
        let dir = temporary()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let origin = SocketAddr::from((CLUSTER_IP, free_port(CLUSTER_IP)?));
        let origin_h2 = SocketAddr::from((CLUSTER_IP, free_port(CLUSTER_IP)?));
        let echo = SocketAddr::from((CLUSTER_IP, free_port(CLUSTER_IP)?));

        fs::write(dir.join("64k"), vec![b'x'; 64 * 1024])?;
        fs::write(dir.join("1m"), vec![b'x'; 1024 * 1024])?;
        let addresses = if many {
            (0..MANY)
                .map(|number| Services::Apart.address_of(number))
                .collect()
        } else {
            Vec::new()
        };
        let conf = configs::origin(&dir, origin, origin_h2, &addresses);
        let conf_file = dir.join("origin.conf");
        fs::write(&conf_file, conf)?;
        let mut command = process::on_cores(cores, "nginx");
        command
            .arg("-c")
            .arg(&conf_file)
            .arg("-p")
            .arg(&dir)
            .args(["-e", "stderr"]);
        let mut nginx = Running::start("origin", &mut command, &dir)?;
        nginx.wait_until(ANSWER_TIMEOUT, || answers(origin))?;

        let dns = runtime.block_on(DnsServer::start())?;
        dns.set_ttl(30);
        let domain = ClusterDomain::default();
        let web: ServiceRef = format!("web.default:{}", origin.port()).parse()?;
        dns.add_service(&web, &domain, CLUSTER_IP.into());
        let count = if many { MANY } else { 0 };
        for number in 0..count {
            for services in [Services::Apart, Services::Together] {
                let name = format!("{}.default:{}", services.name_of(number), origin.port());
                let address = services.address_of(number).into();
                dns.add_service(&name.parse()?, &domain, address);
            }
        }
        let listener = runtime.block_on(tokio::net::TcpListener::bind(echo))?;
        let upgrade = Arc::new(Mutex::new(String::new()));
        runtime.spawn(echo_origin(listener, Arc::clone(&upgrade)));
        Ok(Self {
            dir,
            dns: dns.addr(),
            origin,
            origin_h2,
            echo,
            upgrade,
            _nginx: nginx,
            _dns: dns,
            _runtime: runtime,
        })
    }

    /// The last head that asked the origin for WebSocket.
    pub(crate) fn last_upgrade(&self) -> String {
        let last = self.upgrade.lock();
        last.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// The Services that a proxy has routes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Services {
    One,
    /// [`MANY`], each at an address of its own.
    Apart,
    /// [`MANY`], all at one address.
    Together,
}

impl Services {
    /// The name of one of many.
    pub(crate) fn name_of(self, number: usize) -> String {
        match self {
            Self::One => "web".to_owned(),
            Self::Apart => format!("web-{number}"),
            Self::Together => format!("near-{number}"),
        }
    }

    pub(crate) fn address_of(self, number: usize) -> Ipv4Addr {
        let (high, low) = (number / 250, number % 250);
        match self {
            Self::Apart => Ipv4Addr::new(127, 1, high as u8, low as u8 + 1),
            Self::One | Self::Together => CLUSTER_IP,
        }
    }

    /// The host that the origin must get.
    pub(crate) fn vhost_of(self, number: usize) -> String {
        format!("{}.default.svc.cluster.local", self.name_of(number))
    }
}

/// The host that leads to one of many Services.
pub(crate) fn host_of(number: usize) -> String {
    format!("shop-{number}.example.com")
}

/// A directory of this process.
fn temporary() -> Result<PathBuf, BoxError> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("side-by-side-{}-{number}", std::process::id());
    let dir = std::env::temp_dir().join(name);
    fs::create_dir(&dir)?;
    interrupt::remove_at_end(&dir);
    Ok(dir)
}

/// A free port, below those the kernel gives to clients, so that none of the thousands of connections
/// of a run can take it.
pub(crate) fn free_port(address: Ipv4Addr) -> Result<u16, BoxError> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let port = 21_000 + NEXT.fetch_add(1, Ordering::Relaxed);
        if port > 32_000 {
            return Err("no free port".into());
        }
        if TcpListener::bind((address, port)).is_ok() {
            return Ok(port);
        }
    }
}

/// Checks that a GET is answered with a 200.
fn answers(to: SocketAddr) -> Result<(), BoxError> {
    let mut stream = TcpStream::connect_timeout(&to, ANSWER_TIMEOUT)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let request = format!("GET /1k HTTP/1.1\r\nHost: {VHOST}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    match answer.starts_with(b"HTTP/1.1 200") {
        true => Ok(()),
        false => Err(format!("{to} does not answer with 200").into()),
    }
}

/// Answers every request with an upgrade, then echoes bytes: to a proxy the same as a WebSocket echo.
/// It neither unmasks nor checks messages, as proxies do not, either.
async fn echo_origin(listener: tokio::net::TcpListener, last: Arc<Mutex<String>>) {
    // The answer to the key of RFC 6455 §1.3, which the load sends.
    const SWITCHING: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    while let Ok((mut stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let last = Arc::clone(&last);
        tokio::spawn(async move {
            let mut head = Vec::with_capacity(1024);
            while !head.ends_with(b"\r\n\r\n") {
                if matches!(stream.read_buf(&mut head).await, Ok(0) | Err(_)) {
                    return;
                }
            }
            let text = String::from_utf8_lossy(&head).into_owned();
            *last.lock().unwrap_or_else(PoisonError::into_inner) = text;
            if stream.write_all(SWITCHING).await.is_err() {
                return;
            }
            let mut buffer = vec![0; 4096];
            while let Ok(read) = stream.read(&mut buffer).await {
                let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
                    return;
                };
                if stream.write_all(bytes).await.is_err() {
                    return;
                }
            }
        });
    }
}
