//! A piece of internet on this machine: network namespaces, cables between them, and routers that hide what is
//! behind them as home routers do (Linux masquerade).
//!
//! ```text
//!   left 192.168.1.2 ── router ── 198.51.100.10 ─┐
//!                                                ├─ public 198.51.100.1
//!   right 192.168.2.2 ── router ── 198.51.100.20 ┘
//! ```
//!
//! A router lets in only what answers something sent from inside, per address and port. Whether two machines
//! behind two of them can open a direct way depends on the ports they give (RFC 4787, section 4): see [`Ports`].

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};

use crate::program::skipped;

/// The address in the public namespace.
pub const PUBLIC: &str = "198.51.100.1";

/// What ports a router gives to connections from inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// The same as inside, if it is free: everybody outside sees the same one, and can be told about it.
    Kept,
    /// One by chance for every connection: nobody can tell in advance.
    Random,
}

/// The namespaces. Dropping it removes them, with all that is in them: declare it before the processes, so that
/// it goes after them.
#[derive(Debug)]
pub struct Internet {
    name: String,
}

impl Internet {
    /// Builds it; `None`, with a word about it, where that is not permitted or a tool is missing.
    ///
    /// # Errors
    /// It is permitted, but does not work.
    pub fn new(ports: Ports) -> Result<Option<Self>> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let internet = Self { name: format!("swarm-{}-{number}", std::process::id()) };
        if let Err(why) = internet.try_out() {
            skipped(&format!("no network namespaces with address translation here: {why:#}"));
            return Ok(None);
        }
        let public = internet.public();
        sh(&format!("ip -n {public} link add middle type bridge"))?;
        sh(&format!("ip -n {public} addr add {PUBLIC}/24 dev middle"))?;
        sh(&format!("ip -n {public} link set middle up"))?;
        internet.home("left", 1, 10, ports)?;
        internet.home("right", 2, 20, ports)?;
        Ok(Some(internet))
    }

    /// The namespace that everybody reaches, at [`PUBLIC`].
    pub fn public(&self) -> String {
        format!("{}-public", self.name)
    }

    /// The namespace behind the first router.
    pub fn left(&self) -> String {
        format!("{}-left", self.name)
    }

    /// The namespace behind the second router.
    pub fn right(&self) -> String {
        format!("{}-right", self.name)
    }

    /// Does what may not be permitted.
    fn try_out(&self) -> Result<()> {
        for tool in ["ip -V", "iptables --version"] {
            sh(tool).with_context(|| format!("'{tool}' does not work"))?;
        }
        let public = self.public();
        self.namespace("public")?;
        sh(&format!("ip -n {public} link add try type veth peer name out"))?;
        sh(&format!("ip -n {public} link del try"))?;
        let rule = "POSTROUTING -o try -j MASQUERADE --random";
        sh(&format!("ip netns exec {public} iptables -w -t nat -A {rule}"))?;
        sh(&format!("ip netns exec {public} iptables -w -t nat -D {rule}"))
    }

    fn namespace(&self, name: &str) -> Result<()> {
        let name = format!("{}-{name}", self.name);
        sh(&format!("ip netns add {name}"))?;
        sh(&format!("ip -n {name} link set lo up"))
    }

    /// One machine and its router; `net` numbers the private network, `host` the router's place outside.
    fn home(&self, name: &str, net: u8, host: u8, ports: Ports) -> Result<()> {
        let router = format!("{name}-router");
        self.namespace(name)?;
        self.namespace(&router)?;
        let (public, inside, router) =
            (self.public(), format!("{}-{name}", self.name), format!("{}-{router}", self.name));
        let random = if ports == Ports::Random { "--random" } else { "" };
        for step in [
            format!("ip -n {router} link add wan type veth peer name {name} netns {public}"),
            format!("ip -n {public} link set {name} master middle up"),
            format!("ip -n {router} addr add 198.51.100.{host}/24 dev wan"),
            format!("ip -n {router} link set wan up"),
            format!("ip -n {router} link add lan type veth peer name eth netns {inside}"),
            format!("ip -n {router} addr add 192.168.{net}.1/24 dev lan"),
            format!("ip -n {router} link set lan up"),
            format!("ip -n {inside} addr add 192.168.{net}.2/24 dev eth"),
            format!("ip -n {inside} link set eth up"),
            format!("ip -n {inside} route add default via 192.168.{net}.1"),
            format!("ip netns exec {router} sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'"),
            format!("ip netns exec {router} iptables -w -t nat -A POSTROUTING -o wan -j MASQUERADE {random}"),
            // A home router does not answer strangers, nor pass them on.
            format!(
                "ip netns exec {router} iptables -w -A FORWARD -i wan -m conntrack --ctstate NEW,INVALID -j DROP"
            ),
            format!(
                "ip netns exec {router} iptables -w -A INPUT -i wan -m conntrack --ctstate NEW,INVALID -j DROP"
            ),
        ] {
            sh(&step)?;
        }
        Ok(())
    }
}

impl Drop for Internet {
    fn drop(&mut self) {
        for name in ["public", "left", "left-router", "right", "right-router"] {
            // It fails for those that were never made.
            let _ = sh(&format!("ip netns del {}-{name}", self.name));
        }
    }
}

fn sh(command: &str) -> Result<()> {
    let done = Command::new("sh").arg("-c").arg(command).output()?;
    ensure!(done.status.success(), "'{command}': {}", String::from_utf8_lossy(&done.stderr).trim());
    Ok(())
}
