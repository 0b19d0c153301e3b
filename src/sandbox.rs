//! What a program that we start may touch of the file system and the network, enforced by Landlock where the kernel has it.
//!
//! A Landlock domain is one of a thread, and a child inherits that of the thread which starts it. So a program is started
//! from a thread of its own, which gives up its rights first and ends afterwards: no code runs between fork and exec, and
//! no other thread loses anything. A kernel with fewer rules enforces those it knows; one without Landlock none. Of the network
//! there are rules for TCP only, from Linux 6.7 on: a name may still be looked up by UDP, but nobody can be spoken to.

use std::io;
use std::path::PathBuf;

#[cfg(target_os = "linux")]
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetStatus, Scope, path_beneath_rules,
};

/// Programs and libraries of the system, and what they read to find names and to trust servers. Of these only what is
/// there counts; in the image there is little.
const SYSTEM: [&str; 11] = [
    "/bin",
    "/etc/ca-certificates",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/nsswitch.conf",
    "/etc/pki",
    "/etc/resolv.conf",
    "/etc/ssl",
    "/lib",
    "/lib64",
    "/usr",
];
/// Devices without memory.
const DEVICES: [&str; 3] = ["/dev/null", "/dev/random", "/dev/urandom"];

/// Files and directories, each with all below it, that a program may read and execute beside those of the system. It may
/// write nothing but what it inherits open, and neither open nor await a TCP connection.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Reach(pub Vec<PathBuf>);

impl Reach {
    /// Starts something on a thread that reaches no further.
    pub fn within<T: Send + 'static>(
        self,
        start: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let confined = move || {
            self.confine()?;
            start()
        };
        let thread = std::thread::Builder::new().name("confined".to_owned()).spawn(confined)?;
        thread.join().map_err(|_| io::Error::other("the starting thread ended unexpectedly"))?
    }

    /// Whether the kernel enforces any of it from now on.
    #[cfg(target_os = "linux")]
    fn confine(&self) -> io::Result<bool> {
        let abi = ABI::V7;
        let (read, all) = (AccessFs::from_read(abi), AccessFs::from_all(abi));
        let device = AccessFs::ReadFile | AccessFs::WriteFile;
        let confine = || {
            Ruleset::default()
                .set_compatibility(CompatLevel::BestEffort)
                .handle_access(all)?
                .handle_access(AccessNet::from_all(abi))?
                .scope(Scope::from_all(abi))?
                .create()?
                .add_rules(path_beneath_rules(SYSTEM, read))?
                .add_rules(path_beneath_rules(&self.0, read))?
                .add_rules(path_beneath_rules(DEVICES, device))?
                .restrict_self()
        };
        let status = confine().map_err(io::Error::other)?;
        Ok(status.ruleset != RulesetStatus::NotEnforced)
    }

    #[cfg(not(target_os = "linux"))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "there is nothing to confine with")]
    fn confine(&self) -> io::Result<bool> {
        Ok(false)
    }
}

/// Whether the kernel enforces any of it; tried on a thread that ends.
pub fn is_enforced() -> bool {
    let tried = std::thread::spawn(|| Reach::default().confine());
    matches!(tried.join(), Ok(Ok(true)))
}
