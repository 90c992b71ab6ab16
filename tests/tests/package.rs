//! The packages run where there is nothing but a C library: in a bare root folder, on another path than they were
//! made at.
//!
//! Where the system does not let this change its root folder the test says so and passes. The programs are those of
//! this build: a release's node without training has the C library inside, and needs less than this one.
#![cfg(target_os = "linux")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use swarm_tests::Place;
use swarm_tests::program::{self, repository, skipped};

/// What every Linux has: the dynamic linker, the C library's parts, and the compiler's own.
const C_LIBRARY: [&str; 8] = [
    "ld-linux",
    "libc.so.6",
    "libm.so.6",
    "libdl.so.2",
    "librt.so.1",
    "libpthread.so.0",
    "libutil.so.1",
    "libgcc_s.so.1",
];

/// Makes the folder in its first argument the root folder, with /proc in it, by which a program knows where it is; and
/// runs the rest of its arguments there.
const INSIDE: &str =
    r#"root=$1; shift; mkdir -p "$root/proc"; mount -t proc proc "$root/proc" && exec chroot "$root" "$@""#;

/// A root folder with a C library and a package in it, and nothing else.
struct Bare {
    root: PathBuf,
    /// What unshare(1) needs to make it the root folder.
    change: &'static [&'static str],
}

impl Bare {
    /// `None`, with a word about it, where root folders cannot be changed.
    fn new(root: PathBuf, linker: &[PathBuf]) -> Result<Option<Self>> {
        let ways: [&[&str]; 2] =
            [&["--mount", "--pid", "--fork"], &["--map-root-user", "--mount", "--pid", "--fork"]];
        let works = |way: &&&[&str]| {
            // Nothing is in there yet, so that chroot itself works and does not find what it is to run.
            let mut tried = Command::new("unshare");
            tried.args(**way).args(["sh", "-c", INSIDE, "sh"]).arg(&root).arg("/none");
            tried.output().is_ok_and(|tried| tried.status.code() == Some(127))
        };
        let Some(change) = ways.iter().find(works) else {
            skipped("unshare, mount and chroot are not permitted here");
            return Ok(None);
        };
        for file in linker {
            let inside = root.join(file.strip_prefix("/")?);
            fs::create_dir_all(inside.parent().context("a library in no folder")?)?;
            fs::copy(file, inside).with_context(|| file.display().to_string())?;
        }
        Ok(Some(Self { root, change }))
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new("unshare");
        command
            .args(self.change)
            .args(["sh", "-c", INSIDE, "sh"])
            .arg(&self.root)
            .arg(program)
            .args(arguments);
        // unshare, mount and chroot themselves are looked for.
        let path = std::env::var_os("PATH").unwrap_or_default();
        command.env_clear().env("PATH", path).env("OMP_NUM_THREADS", "1");
        command.output().context("unshare does not start")
    }

    /// What it prints.
    fn succeeds(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let done = self.run(program, arguments)?;
        let said = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "{program} {arguments:?}: {}\n{said}", done.status);
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }
}

/// The files of the C library that `program` of a package is loaded with.
fn c_library(program: &Path, package: &Path) -> Result<Vec<PathBuf>> {
    let listed = Command::new("ldd").arg(program).output().context("ldd does not start")?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let of_it = listed.lines().filter(|line| C_LIBRARY.iter().any(|name| line.contains(name)));
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    // What is in the package itself is not the system's.
    Ok(of_it.filter_map(path).filter(|path| !path.starts_with(package)).collect())
}

/// The only folder in `out` whose name begins so.
fn package(out: &Path, start: &str) -> Result<PathBuf> {
    let entries: std::io::Result<Vec<_>> = fs::read_dir(out)?.collect();
    let names = entries?.into_iter().map(|entry| entry.path());
    let is_it =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start));
    names
        .filter(is_it)
        .find(|path| path.is_dir())
        .with_context(|| format!("no {start}* in {}", out.display()))
}

#[test]
fn packages_run_where_there_is_only_a_c_library() -> Result<()> {
    let Some(replica) = program::replica()? else { return Ok(()) };
    let place = Place::new()?;
    let made = Command::new(repository().join("scripts/package.sh"))
        .args(["--no-archives", "--out"])
        .arg(place.path("made"))
        .env("SWARM_BIN", program::swarm()?)
        .env("SWARM_REPLICA_BIN", replica)
        .output()?;
    let said = format!("{}{}", String::from_utf8_lossy(&made.stdout), String::from_utf8_lossy(&made.stderr));
    ensure!(made.status.success(), "{said}");
    let root = place.path("bare");
    fs::create_dir(&root)?;
    let (full, replica) =
        (package(&place.path("made"), "swarm-0")?, package(&place.path("made"), "swarm-replica")?);
    let mut linker = c_library(&full.join("bin/swarm"), &place.path("made"))?;
    linker.extend(c_library(&replica.join("bin/swarm"), &place.path("made"))?);
    let Some(bare) = Bare::new(root.clone(), &linker)? else { return Ok(()) };
    // Elsewhere, and under other names: nothing may depend on where they were made.
    fs::rename(full, root.join("moved"))?;
    fs::rename(replica, root.join("replica"))?;
    let version = format!("swarm {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(bare.succeeds("/replica/bin/swarm", &["--version"])?, version);
    assert_eq!(bare.succeeds("/moved/bin/swarm", &["--version"])?, version);
    place.text("bare/text", 1, 20_000)?;
    bare.succeeds("/moved/bin/swarm", &["new", "--model", "nano", "--out", "/genesis.toml"])?;
    let run =
        "run --genesis /genesis.toml --data /text --dir /node --rounds 2 --threads 1 --no-mdns --no-upnp";
    let listen = ["--listen", "/ip4/127.0.0.1/tcp/0", "--when", "always"];
    let run: Vec<&str> = run.split(' ').chain(listen).collect();
    bare.succeeds("/moved/bin/swarm", &run)?;
    let report: Value = serde_json::from_slice(&fs::read(root.join("node/report.json"))?)?;
    assert!(report["deltas_published"] == 2 && report["finished"] == true, "{report}");
    assert!(report["loss_last"].as_f64() < report["loss_first"].as_f64(), "{report}");
    let text = bare
        .succeeds("/moved/bin/swarm", &["generate", "--dir", "/node", "--prompt", "the", "--tokens", "8"])?;
    assert!(text.starts_with("the"), "{text}");
    bare.succeeds("/replica/bin/swarm", &["status", "--dir", "/node"])?;
    Ok(())
}
