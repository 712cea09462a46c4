//! On which processors PostgreSQL and who talks to it run. Where the kernel puts the two
//! decides how long a call takes while nothing else is under way, and it puts them
//! elsewhere in every run.

use clap::ValueEnum;

use crate::Result;
use crate::databases;
use crate::machine::field;
use crate::peer::Target;

/// What the report calls it.
pub(crate) const SETTING: &str = "processors on PostgreSQL";

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pin {
    /// The kernel chooses
    None,
    /// The peer on one processor, the server on another
    Apart,
    /// Both on the same
    Together,
}

/// Processors by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Processors {
    pub peer: usize,
    pub server: usize,
}

impl Pin {
    /// Chooses among the processors that this process may use.
    pub(crate) fn processors(self) -> Result<Option<Processors>> {
        match self {
            Self::None => Ok(None),
            _ => self.among(&affinity::list(&affinity::get(None)?)),
        }
    }

    /// Chooses the first and the last: neighbours may be two threads of one core.
    fn among(self, usable: &[usize]) -> Result<Option<Processors>> {
        let (Some(&peer), Some(&last)) = (usable.first(), usable.last()) else {
            return Err("--pin: there is no processor".into());
        };
        let server = match self {
            Self::None => return Ok(None),
            Self::Apart if peer == last => {
                return Err("--pin apart: there is only one processor".into());
            }
            Self::Apart => last,
            Self::Together => peer,
        };
        Ok(Some(Processors { peer, server }))
    }
}

/// Describes the processors for the report.
pub(crate) fn describe(processors: Option<Processors>) -> (String, String) {
    let value = match processors {
        None => "as the kernel chooses".to_owned(),
        Some(Processors { peer, server }) if peer == server => {
            format!("together, peer and server on {peer}")
        }
        Some(Processors { peer, server }) => format!("apart, peer on {peer}, server on {server}"),
    };
    (SETTING.to_owned(), value)
}

/// Runs something on one processor. The processes that it starts stay there.
pub(crate) fn on<T>(processor: usize, run: impl FnOnce() -> T) -> Result<T> {
    let before = affinity::get(None)?;
    affinity::set(None, &affinity::only(processor))?;
    let done = run();
    affinity::set(None, &before)?;
    Ok(done)
}

/// A server that is held on one processor until this is dropped.
pub(crate) struct PinnedServer {
    postmaster: i32,
    before: affinity::Mask,
}

impl PinnedServer {
    /// Puts all processes of a server on a processor. Those that it starts later
    /// inherit that.
    pub(crate) async fn new(server: &Target, processor: usize) -> Result<Self> {
        let postmaster = databases::postmaster(server).await?;
        let before = affinity::get(Some(postmaster))?;
        place(postmaster, &affinity::only(processor))
            .map_err(|error| format!("--pin: PostgreSQL can't be moved: {error}"))?;
        Ok(Self { postmaster, before })
    }
}

impl Drop for PinnedServer {
    fn drop(&mut self) {
        // When it has ended there is nothing to undo.
        let _ = place(self.postmaster, &self.before);
    }
}

/// Places a process, and then those that it has started.
fn place(parent: i32, mask: &affinity::Mask) -> std::io::Result<()> {
    affinity::set(Some(parent), mask)?;
    for entry in std::fs::read_dir("/proc")? {
        let pid = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        if let Some(pid) = pid
            && parent_of(pid, "") == Some(parent)
        {
            // It may have ended meanwhile.
            let _ = affinity::set(Some(pid), mask);
        }
    }
    Ok(())
}

/// Returns the process that has started this one of this machine's, if its name begins
/// so.
pub(crate) fn parent_of(pid: i32, name: &str) -> Option<i32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    if !field(&status, "Name", ':').starts_with(name) {
        return None;
    }
    field(&status, "PPid", ':').parse().ok()
}

#[cfg(target_os = "linux")]
mod affinity {
    use std::io;

    pub(super) use rustix::thread::CpuSet as Mask;
    use rustix::thread::{Pid, sched_getaffinity, sched_setaffinity};

    /// Without a process it is this thread.
    pub(super) fn get(pid: Option<i32>) -> io::Result<Mask> {
        Ok(sched_getaffinity(pid.and_then(Pid::from_raw))?)
    }

    pub(super) fn set(pid: Option<i32>, mask: &Mask) -> io::Result<()> {
        Ok(sched_setaffinity(pid.and_then(Pid::from_raw), mask)?)
    }

    pub(super) fn only(processor: usize) -> Mask {
        let mut mask = Mask::new();
        mask.set(processor);
        mask
    }

    pub(super) fn list(mask: &Mask) -> Vec<usize> {
        (0..Mask::MAX_CPU).filter(|nth| mask.is_set(*nth)).collect()
    }
}

/// Elsewhere a process can't be moved.
#[cfg(not(target_os = "linux"))]
mod affinity {
    use std::io;

    pub(super) struct Mask;

    pub(super) fn get(_: Option<i32>) -> io::Result<Mask> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "--pin works on Linux only",
        ))
    }

    pub(super) fn set(_: Option<i32>, _: &Mask) -> io::Result<()> {
        get(None).map(drop)
    }

    pub(super) fn only(_: usize) -> Mask {
        Mask
    }

    pub(super) fn list(_: &Mask) -> Vec<usize> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_chosen_among_those_that_are_usable() {
        let usable = [1, 2, 5];
        let chosen = |pin: Pin| pin.among(&usable).unwrap();
        assert_eq!(chosen(Pin::None), None);
        assert_eq!(chosen(Pin::Apart), Some(Processors { peer: 1, server: 5 }));
        assert_eq!(
            chosen(Pin::Together),
            Some(Processors { peer: 1, server: 1 })
        );
        assert!(Pin::Apart.among(&[3]).is_err());
        assert!(Pin::Together.among(&[]).is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_started_on_a_processor_stays_there() {
        let usable = affinity::list(&affinity::get(None).unwrap());
        let last = *usable.last().unwrap();
        let child = std::process::Command::new("sleep").arg("5").spawn();
        let mut free = child.unwrap();
        let mut held = on(last, || {
            std::process::Command::new("sleep").arg("5").spawn()
        })
        .unwrap()
        .unwrap();
        let seen = [&free, &held].map(|child| {
            let pid = child.id().try_into().unwrap();
            assert_eq!(parent_of(pid, ""), std::process::id().try_into().ok());
            affinity::list(&affinity::get(Some(pid)).unwrap())
        });
        for child in [&mut free, &mut held] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert_eq!(seen, [usable.clone(), vec![last]]);
        assert_eq!(affinity::list(&affinity::get(None).unwrap()), usable);
    }
}
