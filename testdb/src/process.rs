//! Child processes of tests: started with nothing in their environment, heard
//! line by line, and ended or killed without warning.
//!
//! ```
//! use testdb::process::{Running, command};
//!
//! let folder = std::env::temp_dir();
//! let mut greet = command("sh", &folder, &[("NAME", "Ada".to_owned())]);
//! let ended = Running::start(greet.args(["-c", "echo Hello $NAME; exit 3"])).end();
//! assert_eq!(ended.stdout, "Hello Ada\n");
//! assert_eq!(ended.status.code(), Some(3));
//!
//! let mut running = Running::start(command("sh", &folder, &[]).args(["-c", "echo on; exec sleep 60"]));
//! assert!(running.hears("on"));
//! assert_eq!(running.kill().status.code(), None); // by a signal
//! ```

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::TestDb;

/// Longer than any process of a test should take.
const PATIENCE: Duration = Duration::from_mins(3);

/// A command that starts in `folder`, has nobody at its keyboard, and has
/// nothing in its environment but `PATH` and these variables.
#[must_use]
pub fn command(
    program: impl AsRef<OsStr>,
    folder: &Path,
    variables: &[(&'static str, String)],
) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(folder)
        .stdin(Stdio::null())
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .envs(variables.iter().map(|(name, value)| (*name, value)));
    command
}

impl TestDb {
    /// Runs one of our tools to its end, in an empty folder, with nothing but
    /// the variables that lead to this database and these.
    ///
    /// # Panics
    ///
    /// When the tool does, or when it prints colours into a pipe.
    #[must_use]
    pub fn tool(&self, tool: &str, arguments: &[&str], more: &[(&'static str, &str)]) -> Ended {
        let more = more
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()));
        let variables: Vec<_> = self.variables().into_iter().chain(more).collect();
        let mut command = command(tool, &self.work(), &variables);
        let ended = Running::start(command.args(arguments)).end();
        for output in [&ended.stdout, &ended.stderr] {
            assert!(!output.contains('\x1b'), "colour in a pipe: {ended:?}");
            assert!(!output.contains("panicked"), "{ended:?}");
        }
        ended
    }

    /// The folder that tools run in; empty, and below [`TestDb::folder`].
    ///
    /// # Panics
    ///
    /// When it can't be made.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        let folder = self.folder().join("work");
        std::fs::create_dir_all(&folder).expect("a folder");
        folder
    }
}

/// What the person who started the tests asks for in the environment, such as
/// more rounds (`AURA_ROUNDS`) or kills (`AURA_KILLS`) than every change needs.
#[must_use]
pub fn asked(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The `index`th of a sequence of moments from 0 to 1 that looks random, is
/// the same every time, and leaves no part out however short it is cut.
#[must_use]
pub fn moment(index: u32) -> f64 {
    (f64::from(index) * 0.618_033_988_749_895).fract()
}

/// A process that ended, and everything that it wrote.
#[derive(Debug)]
pub struct Ended {
    /// How it ended; without a code by a signal.
    pub status: ExitStatus,
    /// What it wrote for whoever uses the result.
    pub stdout: String,
    /// What it wrote about it.
    pub stderr: String,
    /// How long it ran.
    pub took: Duration,
}

/// A process under way. It is killed when this is dropped.
#[derive(Debug)]
pub struct Running {
    child: Reaped,
    started: Instant,
    lines: Receiver<String>,
    heard: String,
    stderr: JoinHandle<String>,
}

impl Running {
    /// Starts it and listens to both of its outputs.
    ///
    /// # Panics
    ///
    /// When there is no such program.
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        let started = Instant::now();
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = child.stdout.take().expect("a pipe");
        let mut stderr = child.stderr.take().expect("a pipe");
        let (tell, lines) = channel();
        std::thread::spawn(move || {
            let mut stdout = BufReader::new(stdout);
            let mut line = Vec::new();
            while stdout.read_until(b'\n', &mut line).unwrap_or(0) > 0 {
                let _ = tell.send(String::from_utf8_lossy(&line).into_owned());
                line.clear();
            }
        });
        let stderr = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = stderr.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        });
        Self {
            child: Reaped(child),
            started,
            lines,
            heard: String::new(),
            stderr,
        }
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.0.id()
    }

    /// Whether it has ended by itself.
    ///
    /// # Panics
    ///
    /// When it is not ours to ask.
    pub fn has_ended(&mut self) -> bool {
        let status = self.child.0.try_wait();
        status.expect("it is our own process").is_some()
    }

    /// Waits for the next line of stdout that contains this; `false` when it
    /// ended without one.
    ///
    /// # Panics
    ///
    /// When it does neither for minutes.
    pub fn hears(&mut self, text: &str) -> bool {
        while let Some(line) = self.next_line() {
            if line.contains(text) {
                return true;
            }
        }
        false
    }

    /// All lines of stdout that were waited for.
    #[must_use]
    pub fn heard(&self) -> &str {
        &self.heard
    }

    fn next_line(&mut self) -> Option<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => {
                self.heard.push_str(&line);
                Some(line)
            }
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("not a word since:\n{}", self.heard),
        }
    }

    /// Ends it as a power failure would: at once, and without asking it.
    ///
    /// # Panics
    ///
    /// When it is not ours to kill.
    #[must_use]
    pub fn kill(mut self) -> Ended {
        self.child.0.kill().expect("it is our own process");
        self.end()
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    ///
    /// When it doesn't for minutes.
    #[must_use]
    pub fn end(mut self) -> Ended {
        while self.next_line().is_some() {}
        // It may close its output before it ends.
        let status = loop {
            match self.child.0.try_wait().expect("it is our own process") {
                Some(status) => break status,
                None if self.started.elapsed() > PATIENCE * 2 => panic!("it does not end"),
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        Ended {
            status,
            took: self.started.elapsed(),
            stdout: self.heard,
            stderr: self.stderr.join().unwrap_or_default(),
        }
    }
}

/// A process that doesn't outlive its test.
#[derive(Debug)]
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
