//! The `nameserver` lines of resolv.conf, and nothing else of it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

const DNS_PORT: u16 = 53;

/// The name servers in the text. Lines that cannot be understood are left out and named, because
/// one odd line must not take all targets away.
///
/// resolv.conf(5): the keyword begins the line; `#` and `;` begin comments. `search`, `domain`,
/// `options` do not matter here: names are absolute, and the timeouts are ours.
pub(super) fn nameservers(text: &str) -> (Vec<SocketAddr>, Vec<String>) {
    let (mut servers, mut odd) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let line = line.split(['#', ';']).next().unwrap_or_default();
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        match words.next().and_then(address) {
            Some(server) if !servers.contains(&server) => servers.push(server),
            Some(_) => {}
            None => odd.push(line.trim().to_owned()),
        }
    }
    (servers, odd)
}

fn address(text: &str) -> Option<SocketAddr> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(SocketAddr::new(ip, DNS_PORT));
    }
    if let Some((ip, scope)) = text.split_once('%') {
        // RFC 4007 §11: an interface by number. By name it would need a system call of its own.
        let (ip, scope) = (ip.parse::<Ipv6Addr>().ok()?, scope.parse().ok()?);
        return Some(SocketAddrV6::new(ip, DNS_PORT, 0, scope).into());
    }
    // OpenBSD's form for another port.
    let (ip, port) = text.strip_prefix('[')?.split_once("]:")?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    Some(SocketAddr::new(ip.parse().ok()?, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_has_one_server_and_much_else() {
        let text = "search default.svc.cluster.local svc.cluster.local cluster.local\n\
                    nameserver 10.96.0.10\noptions ndots:5 timeout:30\n";
        let (servers, odd) = nameservers(text);
        assert_eq!(servers, ["10.96.0.10:53".parse().unwrap()]);
        assert!(odd.is_empty());
    }

    #[test]
    fn order_is_kept_and_repetition_is_not() {
        let text = "nameserver 10.0.0.2\n\tnameserver  fd00::a # comment\nnameserver 10.0.0.2\n\
                    nameserver fe80::1%2;\nnameserver [127.0.0.1]:5353\nnameserver [::1]:53\r\n";
        let (servers, odd) = nameservers(text);
        let expected: Vec<SocketAddr> = [
            "10.0.0.2:53",
            "[fd00::a]:53",
            "[fe80::1%2]:53",
            "127.0.0.1:5353",
            "[::1]:53",
        ]
        .iter()
        .map(|server| server.parse().unwrap())
        .collect();
        assert_eq!(servers, expected);
        assert!(odd.is_empty());
    }

    #[test]
    fn odd_lines_are_named_and_left_out() {
        let text = "nameserver\nnameserver dns.example\nnameserver [::1]:0\nnameserver fe80::1%eth0\n\
                    #nameserver 10.0.0.1\nnameservers 10.0.0.3\nnameserver 10.0.0.2";
        let (servers, odd) = nameservers(text);
        assert_eq!(servers, ["10.0.0.2:53".parse().unwrap()]);
        assert_eq!(odd.len(), 4, "{odd:?}");
    }
}
