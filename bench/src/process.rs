//! The process of a peer, seen from outside.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::Result;
use crate::machine::memory;
use crate::peer::{Name, Setup, Target};
use crate::pin;
use crate::protocol::{Request, Response};

/// How long a peer may be silent.
const PATIENCE: Duration = Duration::from_mins(15);

/// The programs that peers run in.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    /// This one.
    pub own: PathBuf,
    /// The script for Node.js, when it can be run.
    pub node: Option<PathBuf>,
    /// The processor that they run on with PostgreSQL, where one was chosen.
    pub processor: Option<usize>,
}

/// A peer at work.
pub(crate) struct Worker {
    peer: Name,
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    /// Starts one that opens a database. The answer is yet to be read.
    pub(crate) async fn start(programs: &Programs, setup: &Setup) -> Result<Self> {
        let mut command = if let Some(folder) = setup.peer.node_folder() {
            let script = programs.node.as_ref().ok_or("there is no Node.js")?;
            let mut command = Command::new("node");
            command.arg(script).arg(folder);
            command
        } else {
            let mut command = Command::new(&programs.own);
            command.arg("worker");
            command
        };
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = match (&setup.target, programs.processor) {
            (Target::Postgres { .. }, Some(processor)) => pin::on(processor, || command.spawn())?,
            _ => command.spawn(),
        }?;
        let input = child.stdin.take().ok_or("no way to speak to it")?;
        let output = child.stdout.take().ok_or("no way to hear it")?;
        let mut worker = Self {
            peer: setup.peer,
            child,
            input,
            output: BufReader::new(output).lines(),
        };
        worker.send(&Request::Open(setup.clone())).await?;
        Ok(worker)
    }

    /// Starts one and waits until the database is open.
    pub(crate) async fn open(programs: &Programs, setup: &Setup) -> Result<Self> {
        let mut worker = Self::start(programs, setup).await?;
        worker.hear().await?;
        Ok(worker)
    }

    pub(crate) async fn ask(&mut self, request: &Request) -> Result<Response> {
        self.send(request).await?;
        self.hear().await
    }

    pub(crate) async fn send(&mut self, request: &Request) -> Result<()> {
        let mut line = serde_json::to_string(request)?;
        line.push('\n');
        let peer = self.peer.title();
        let sent = self.input.write_all(line.as_bytes()).await;
        sent.map_err(|error| format!("{peer} can't be told anything: {error}").into())
    }

    pub(crate) async fn hear(&mut self) -> Result<Response> {
        let peer = self.peer.title();
        let line = tokio::time::timeout(PATIENCE, self.output.next_line())
            .await
            .map_err(|_| format!("{peer} said nothing for {PATIENCE:?}"))??;
        let line = line.ok_or_else(|| format!("{peer} ended before it was done"))?;
        let response = serde_json::from_str(&line)
            .map_err(|error| format!("{peer} said what nobody understands ({error}): {line}"))?;
        match response {
            Response::Failed(why) => Err(format!("{peer}: {why}").into()),
            response => Ok(response),
        }
    }

    /// The most memory that it ever had, in MiB.
    pub(crate) fn peak_memory(&self) -> Option<f64> {
        let path = format!("/proc/{}/status", self.child.id()?);
        memory(&std::fs::read_to_string(path).ok()?, "VmHWM")
    }

    /// Lets it end.
    pub(crate) async fn close(self) {
        let Self {
            mut child, input, ..
        } = self;
        drop(input);
        let _ = tokio::time::timeout(Duration::from_secs(5), child.wait()).await;
    }
}
