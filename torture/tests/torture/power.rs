//! What a power cut leaves of a SQLite file: a run's writes are traced, and at
//! each of many moments a file is made of what was synced by then, with none or
//! some of what was not. What the writer had been told before is in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use testdb::process::{Running, moment};
use testdb::{Backend, TestDb};
use torture::Operation;

use crate::{arguments, messages_of, pick, rounds, traced, workflow, wrong};

/// Something that happened to the disk, or that the writer said.
#[derive(Debug)]
enum Event {
    Write(PathBuf, u64, Vec<u8>),
    Truncate(PathBuf, u64),
    /// So many events had happened when it began; what came later may be lost.
    Sync(PathBuf, usize),
    Told(Operation),
}

/// The events of a run, in order.
fn events(test: &TestDb, flow: i64, run: u32, more: &[&str]) -> Vec<Event> {
    const CALLS: &str = "trace=pwrite64,write,fsync,fdatasync,ftruncate,fallocate,rename,pwritev";
    let trace = test.folder().join(format!("trace-{run}"));
    let out = trace.display().to_string();
    // All of what is written, in hexadecimal.
    let options = ["-y", "-xx", "-s", "1000000", "-o", &out, "-e", CALLS];
    let mut own = vec!["--tasks=8", "--operations=12"];
    own.extend(more);
    let arguments = arguments(flow, run, &own);
    let ended = Running::start(&mut traced(test, &options, &arguments)).end();
    assert!(ended.status.success(), "{ended:?}");
    let lines = std::fs::read_to_string(&trace).expect("a trace");
    std::fs::remove_file(&trace).expect("it is ours");
    let mut begun: BTreeMap<&str, (&str, usize)> = BTreeMap::new();
    let mut events = Vec::new();
    for line in lines.lines() {
        let (thread, rest) = line.split_once(' ').expect("a thread");
        let rest = rest.trim_start();
        if let Some(start) = rest.strip_suffix(" <unfinished ...>") {
            begun.insert(thread, (start, events.len()));
        } else if rest.starts_with("<... ") {
            // What it was asked to do stands where it began.
            let (start, at) = begun.remove(thread).expect("it has begun");
            events.extend(event(start, at));
        } else {
            let now = events.len();
            events.extend(event(rest, now));
        }
    }
    events
}

/// `pwrite64(4<path>, "data", length, offset) = …`, with hexadecimal strings.
fn event(call: &str, begun: usize) -> Option<Event> {
    let (name, rest) = call.split_once('(')?;
    let (_, rest) = rest.split_once('<')?;
    let (path, rest) = rest.split_once('>')?;
    // Pipes and their kin are written as they are.
    let path = match path.strip_prefix("\\x") {
        Some(_) => String::from_utf8(bytes(path)).expect("a path"),
        None => path.to_owned(),
    };
    let path = PathBuf::from(path);
    let number = |text: &str| -> u64 {
        let digits = text.trim().split([')', ' ']).next().unwrap_or_default();
        digits
            .parse()
            .unwrap_or_else(|_| panic!("a number: {call}"))
    };
    match name {
        "write" => {
            let data = rest.split('"').nth(1)?;
            let said = String::from_utf8(bytes(data)).ok()?;
            Some(Event::Told(said.strip_suffix('\n')?.parse().ok()?))
        }
        "pwrite64" => {
            let (data, rest) = rest.strip_prefix(", \"")?.split_once('"')?;
            assert!(!rest.starts_with("..."), "cut short");
            let offset = number(rest.rsplit(", ").next()?);
            Some(Event::Write(path, offset, bytes(data)))
        }
        "ftruncate" => Some(Event::Truncate(path, number(rest.strip_prefix(", ")?))),
        "fsync" | "fdatasync" => Some(Event::Sync(path, begun)),
        other => panic!("nobody thought of {other}"),
    }
}

/// `\x61\x62`.
fn bytes(text: &str) -> Vec<u8> {
    let digits = text.split("\\x").filter(|digits| !digits.is_empty());
    digits
        .map(|digits| u8::from_str_radix(digits, 16).expect("hexadecimal"))
        .collect()
}

/// A file on a disk that forgets what was not synced.
#[derive(Debug, Clone, Default)]
struct File {
    synced: Vec<u8>,
    /// What came since, and when.
    since: Vec<(usize, Change)>,
    /// Its folder was synced, or it was there before.
    linked: bool,
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

impl Change {
    fn apply(&self, file: &mut Vec<u8>) {
        match self {
            Self::Write(at, bytes) => {
                let end = at + bytes.len();
                file.resize(file.len().max(end), 0);
                file[*at..end].copy_from_slice(bytes);
            }
            Self::Truncate(length) => file.resize(*length, 0),
        }
    }
}

/// The disk.
#[derive(Debug, Default)]
struct Disk {
    folder: PathBuf,
    files: BTreeMap<PathBuf, File>,
}

impl Disk {
    /// With the database as it is now.
    fn of(test: &TestDb) -> Self {
        let path = test.folder().join("aura.db");
        let file = File {
            synced: std::fs::read(&path).expect("it is there"),
            linked: true,
            ..File::default()
        };
        Self {
            folder: test.folder().to_owned(),
            files: BTreeMap::from([(path, file)]),
        }
    }

    fn happens(&mut self, at: usize, event: &Event) {
        let index = |number: u64| usize::try_from(number).expect("a small file");
        let (path, change) = match event {
            Event::Told(_) => return,
            Event::Write(path, offset, bytes) => {
                (path, Change::Write(index(*offset), bytes.clone()))
            }
            Event::Truncate(path, length) => (path, Change::Truncate(index(*length))),
            Event::Sync(path, _) if *path == self.folder => {
                for file in self.files.values_mut() {
                    file.linked = true;
                }
                return;
            }
            Event::Sync(path, begun) => {
                if let Some(file) = self.files.get_mut(path) {
                    for (at, change) in std::mem::take(&mut file.since) {
                        if at < *begun {
                            change.apply(&mut file.synced);
                        } else {
                            file.since.push((at, change));
                        }
                    }
                }
                return;
            }
        };
        self.files
            .entry(path.clone())
            .or_default()
            .since
            .push((at, change));
    }

    /// Leaves in this folder what a power cut would, with this share of what was
    /// not synced.
    fn cut(&self, folder: &Path, share: f64) {
        for (path, file) in &self.files {
            let name = path.file_name().expect("a name");
            let is_ours = name == "aura.db" || name == "aura.db-wal";
            if !is_ours || !file.linked {
                continue;
            }
            let mut bytes = file.synced.clone();
            for (at, change) in &file.since {
                let chance = moment(u32::try_from(*at).unwrap_or(u32::MAX));
                if chance < share {
                    change.apply(&mut bytes);
                }
            }
            std::fs::write(folder.join(name), bytes).expect("there is room");
        }
    }
}

/// How many power cuts lost what was told, of how many.
fn cuts(test: &TestDb, flow: i64, run: u32, more: &[&str]) -> (u32, u32, usize) {
    const CUTS: u32 = 40;
    let mut disk = Disk::of(test);
    let events = events(test, flow, run, more);
    let sql = format!("SELECT message FROM logs WHERE message LIKE '{run}:%'");
    let mut at: Vec<usize> = (0..CUTS)
        .map(|cut| pick(cut + run * CUTS, events.len()))
        .collect();
    at.sort_unstable();
    let mut told = Vec::new();
    let mut cuts = at.into_iter().peekable();
    let (mut lost, mut made) = (0, 0);
    for (index, event) in events.iter().enumerate() {
        while cuts.next_if_eq(&index).is_some() {
            for share in [0.0, 0.5] {
                let folder = tempfile::tempdir().expect("a folder");
                disk.cut(folder.path(), share);
                let found = messages_of(&folder.path().join("aura.db"), &sql);
                let wrong = wrong(&told, &found);
                let half = wrong.iter().find(|wrong| !wrong.contains("told"));
                assert!(half.is_none(), "event {index}: {half:?}");
                lost += u32::from(!wrong.is_empty());
                made += 1;
            }
        }
        disk.happens(index, event);
        if let Event::Told(operation) = event {
            told.push(*operation);
        }
    }
    (lost, made, told.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_by_a_power_cut() {
    let test = TestDb::migrated(Backend::Sqlite).await;
    let flow = workflow(&test).await;
    let mut sum = (0, 0);
    for run in rounds(1) {
        let (lost, made, told) = cuts(&test, flow, run, &[]);
        assert!(told > 0, "nothing was written");
        assert_eq!(lost, 0, "of {made} power cuts so many lost what was told");
        sum = (sum.0 + made, sum.1 + told);
    }
    println!(
        "{} power cuts, {} operations told, none lost, none by half",
        sum.0, sum.1
    );
}

/// The other way round: without the wait for the disk they are lost, so a lost
/// one would be seen. Even then nothing is there by half.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_wait_for_the_disk_they_are_lost() {
    let test = TestDb::migrated(Backend::Sqlite).await;
    let flow = workflow(&test).await;
    let (lost, made, _) = cuts(&test, flow, 0, &["--quick"]);
    assert!(
        lost * 4 > made,
        "only {lost} of {made} power cuts lost anything"
    );
}
