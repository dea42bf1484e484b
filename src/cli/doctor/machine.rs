//! What this machine gives: open files, memory, ports.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use rlimit::Resource;
use socket2::{Domain, Protocol, Socket, Type};

use crate::cli::doctor::report::Finding;
use crate::config::Config;
use crate::metrics::Process;

/// A process that listens at a port.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Holder {
    pub(super) pid: u32,
    name: String,
}

/// Whether a port can be had.
#[derive(Debug)]
pub(super) enum Port {
    /// Nobody listens there.
    Free,
    /// Somebody does; who, as far as that can be seen.
    Held(Option<Holder>),
    /// It cannot be had at all.
    Refused(io::Error),
}

/// Fewer files than that are those of somebody who has not thought of it.
const FILES_LEAST: u64 = 10_000;

/// Files besides connections: listeners, API calls, Redis, the database, webhooks.
const FILES_BESIDES: u64 = 200;

const MIB: u64 = 1024 * 1024;

/// What an idle server has, and most of what an idle connection has (with TLS).
const MEMORY_OF_SERVER: u64 = 64 * MIB;
const MEMORY_OF_CONNECTION: u64 = 5 * 1024;

/// How many connections there can be: each is an open file. Of the server that runs, or of one that is started here.
pub(super) fn file_limit(config: &Config, server: Option<&Holder>) -> Finding {
    let of_server =
        server.and_then(|server| files_of(&fs::read_to_string(format!("/proc/{}/limits", server.pid)).ok()?));
    let (limit, whose) = match of_server {
        Some(limit) => (limit, "the running server"),
        // The server raises its own as far as it may.
        None => (Resource::NOFILE.get_hard().unwrap_or_default(), "a server that is started from here"),
    };
    judge_files(limit, whose, config.server.connections_max as u64)
}

fn judge_files(limit: u64, whose: &str, connections_max: u64) -> Finding {
    let remedy = "raise it: LimitNOFILE=1048576 in the systemd unit, --ulimit nofile=1048576 for a container, ulimit -n in \
                  a shell";
    let detail = format!("{whose} may open {limit} files");
    if connections_max > 0 && limit < connections_max + FILES_BESIDES {
        return Finding::failed(
            format!("{detail}, and each of server.connections_max = {connections_max} connections is one"),
            format!("{remedy}; or lower server.connections_max"),
        );
    }
    if limit < FILES_LEAST {
        return Finding::warning(format!("{detail}, and each connection is one"), remedy);
    }
    Finding::ok(detail)
}

/// The soft limit in `/proc/PID/limits`.
fn files_of(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

/// Whether what may be connected fits into the memory that there is.
pub(super) fn memory(config: &Config) -> Finding {
    judge_memory(Process::read().memory_limit_bytes, config.server.connections_max as u64)
}

fn judge_memory(limit: u64, connections_max: u64) -> Finding {
    if limit == 0 {
        return Finding::skipped("the system does not say how much there is");
    }
    let detail = format!("{} MiB for this machine or container", limit / MIB);
    let needed = MEMORY_OF_SERVER + connections_max.saturating_mul(MEMORY_OF_CONNECTION);
    if limit < needed {
        return Finding::warning(
            format!(
                "{detail}, where {} MiB are needed for server.connections_max idle connections",
                needed / MIB
            ),
            "raise the memory limit, or lower server.connections_max: a process that is out of memory is killed",
        );
    }
    Finding::ok(detail)
}

/// Tries to have a port, for a moment and without listening.
pub(super) fn port(address: SocketAddr) -> Port {
    let tried = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into())
    };
    match tried() {
        Ok(()) => Port::Free,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Port::Held(holder(address)),
        Err(error) => Port::Refused(error),
    }
}

/// What is to be said of a port. `is_running`: a server of this machine holds the port for clients.
pub(super) fn judge_port(setting: &str, address: SocketAddr, port: &Port, is_running: bool) -> Finding {
    match port {
        Port::Free if is_running => Finding::warning(
            format!("nobody listens at {address}, though a server runs"),
            format!("restart it: it was started with another {setting}"),
        ),
        Port::Free => Finding::ok(format!("{address} is free")),
        Port::Held(Some(holder)) if holder.is_fanfare() => {
            Finding::ok(format!("{address} is held by {} (process {})", holder.name, holder.pid))
        }
        Port::Held(Some(holder)) if holder.name == "systemd" => {
            Finding::ok(format!("{address} is held by systemd, which hands it over"))
        }
        Port::Held(Some(holder)) => Finding::failed(
            format!("{address} is held by {} (process {})", holder.name, holder.pid),
            format!("stop it, or set {setting} to another port"),
        ),
        Port::Held(None) => Finding::ok(format!(
            "{address} is in use, by a process that cannot be seen from here (root sees it)"
        )),
        Port::Refused(error) => {
            let remedy = match error.kind() {
                io::ErrorKind::PermissionDenied => format!(
                    "ports below 1024 take AmbientCapabilities=CAP_NET_BIND_SERVICE in the systemd unit, or root; or set \
                     {setting} to a port above"
                ),
                io::ErrorKind::AddrNotAvailable => {
                    format!("set {setting} to an address of this machine, or to 0.0.0.0 for all of them")
                }
                _ => format!("set {setting} to an address of this machine and a free port"),
            };
            Finding::failed(format!("{address} cannot be had: {error}"), remedy)
        }
    }
}

impl Holder {
    pub(super) fn is_fanfare(&self) -> bool {
        self.name.starts_with("fanfare")
    }
}

impl Port {
    /// The server of this machine, if it is it that listens.
    pub(super) fn server(&self) -> Option<&Holder> {
        match self {
            Self::Held(Some(holder)) if holder.is_fanfare() => Some(holder),
            _ => None,
        }
    }

    pub(super) fn is_held(&self) -> bool {
        matches!(self, Self::Held(_))
    }
}

/// Who listens there; of several Fanfare first: systemd keeps a socket that it has handed over.
fn holder(address: SocketAddr) -> Option<Holder> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|file| fs::read_to_string(file).unwrap_or_default());
    let sockets: Vec<String> = tables
        .iter()
        .flat_map(|table| table.lines().filter_map(|line| listener(line, address)))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if sockets.is_empty() {
        return None;
    }
    let pids =
        fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut holders: Vec<Holder> = pids
        .filter(|pid| has_any(*pid, &sockets))
        .map(|pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            Holder { pid, name: name.trim().to_owned() }
        })
        .collect();
    holders.sort_by_key(|holder| (!holder.is_fanfare(), holder.pid));
    holders.into_iter().next()
}

/// Whether a process has one of these open.
fn has_any(pid: u32, sockets: &[String]) -> bool {
    let Ok(files) = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd")) else { return false };
    let is_ours = |target: &Path| sockets.iter().any(|socket| target.as_os_str() == socket.as_str());
    files.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|target| is_ours(&target)))
}

/// The inode of a line of `/proc/net/tcp` that listens where `address` is.
fn listener(line: &str, address: SocketAddr) -> Option<&str> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (ip, port) = fields.get(1)?.split_once(':')?;
    let listens = *fields.get(3)? == "0A" && u16::from_str_radix(port, 16) == Ok(address.port());
    let ip = ip_of(ip)?;
    let overlaps = ip.is_unspecified() || address.ip().is_unspecified() || ip == address.ip();
    (listens && overlaps).then(|| fields.get(9).copied())?
}

/// An address as the kernel writes it: words of four bytes, each in the order of the machine.
fn ip_of(text: &str) -> Option<IpAddr> {
    let mut bytes = hex::decode(text).ok()?;
    for word in bytes.chunks_mut(4) {
        let native = u32::from_be_bytes(word.try_into().ok()?);
        word.copy_from_slice(&native.to_ne_bytes());
    }
    match bytes.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_canonical()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::report::Status;

    #[test]
    fn each_connection_is_a_file() {
        let status = |limit: u64, connections_max: u64| judge_files(limit, "it", connections_max).status;
        assert_eq!(status(1_048_576, 0), Status::Ok);
        assert_eq!(status(1024, 0), Status::Warning);
        assert_eq!(status(1024, 500), Status::Warning);
        assert_eq!(status(20_000, 20_000), Status::Failed);
        assert_eq!(status(20_200, 20_000), Status::Ok);
    }

    #[test]
    fn connections_take_memory() {
        assert_eq!(judge_memory(0, 0).status, Status::Skipped);
        assert_eq!(judge_memory(32 * MIB, 0).status, Status::Warning);
        assert_eq!(judge_memory(512 * MIB, 50_000).status, Status::Ok);
        assert_eq!(judge_memory(512 * MIB, 500_000).status, Status::Warning);
    }

    #[test]
    fn limits_of_a_process_are_read() {
        let limits = "Limit       Soft Limit   Hard Limit   Units\nMax open files            1024                 4096                 files\n";
        assert_eq!(files_of(limits), Some(1024));
        assert_eq!(files_of(&limits.replace("1024", "unlimited")), Some(u64::MAX));
        assert_eq!(files_of(""), None);
    }

    #[test]
    fn who_listens_is_found_by_address_and_port() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = socket.local_addr().expect("an address");
        let Port::Held(Some(holder)) = port(address) else { panic!("{:?}", port(address)) };
        assert_eq!(holder.pid, std::process::id());
    }

    #[test]
    fn an_address_is_read_as_the_kernel_writes_it() {
        let native = |bytes: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(bytes));
        assert_eq!(ip_of(&native([127, 0, 0, 1])), "127.0.0.1".parse().ok());
        let zero = "0".repeat(32);
        assert_eq!(ip_of(&zero), "::".parse().ok());
        assert_eq!(ip_of("xyz"), None);
    }

    #[test]
    fn a_port_of_somebody_else_s_is_named() {
        let address: SocketAddr = "0.0.0.0:6001".parse().expect("an address");
        let check = |port: Port, is_running: bool, status: Status, part: &str| {
            let finding = judge_port("server.bind", address, &port, is_running);
            assert!(finding.status == status && finding.detail.contains(part), "{finding:?}");
        };
        let held = |name: &str| Port::Held(Some(Holder { pid: 7, name: name.into() }));
        check(Port::Free, false, Status::Ok, "is free");
        check(Port::Free, true, Status::Warning, "nobody listens");
        check(held("fanfare"), false, Status::Ok, "fanfare (process 7)");
        check(held("systemd"), false, Status::Ok, "hands it over");
        check(held("nginx"), false, Status::Failed, "nginx (process 7)");
        check(Port::Held(None), false, Status::Ok, "cannot be seen");
        check(Port::Refused(io::ErrorKind::PermissionDenied.into()), false, Status::Failed, "cannot be had");
    }
}
