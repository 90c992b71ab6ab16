//! Where the programs under test are.
//!
//! cargo does not build another package's program for a test, so the first use in a test process asks
//! cargo for it: nothing to do if it is fresh. (cargo holds no lock while tests run.)

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, bail, ensure};

/// The repository.
pub fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// The folder of this build's profile, such as `target/debug`: this test is in its `deps`.
fn profile_folder() -> Result<PathBuf> {
    let test = std::env::current_exe().context("cannot find this test's own file")?;
    let folder = test.parent().and_then(Path::parent).context("this test is in no target folder")?;
    Ok(folder.to_owned())
}

/// The `swarm` program of this build, with training.
///
/// # Errors
/// It cannot be built; the text holds what the compiler said.
pub fn swarm() -> Result<&'static Path> {
    static SWARM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = SWARM.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    built.as_deref().map_err(|error| anyhow!("{error}"))
}

fn build() -> Result<PathBuf> {
    let folder = profile_folder()?;
    let profile = folder.file_name().and_then(|name| name.to_str()).context("a profile without a name")?;
    let target = folder.parent().context("a profile in no folder")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
    let mut command = Command::new(&cargo);
    // What cargo tells a test in its environment would count as changed for another cargo, and build scripts
    // that look at it (torch-sys at LIBTORCH, ring at CARGO_PKG_NAME) would run again, back and forth.
    for (name, _) in std::env::vars_os() {
        let told = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_", "CARGO_BIN_", "CARGO_PRIMARY_"];
        if name.to_str().is_some_and(|name| told.iter().any(|start| name.starts_with(start))) {
            command.env_remove(&name);
        }
    }
    let ours = repository().join(".libtorch");
    if std::env::var_os("LIBTORCH").is_some_and(|libtorch| Path::new(&libtorch) == ours) {
        command.env_remove("LIBTORCH");
    }
    let built = command
        // The whole workspace: for one package alone cargo would choose other features of the libraries
        // and compile many of them once more.
        .args(["build", "-j2", "--workspace", "--bin", "swarm", "--profile"])
        .arg(if profile == "debug" { "dev" } else { profile })
        .arg("--target-dir")
        .arg(target)
        .current_dir(repository())
        .output()
        .with_context(|| format!("cannot start {}", cargo.display()))?;
    if !built.status.success() {
        bail!("the swarm program cannot be built:\n{}", String::from_utf8_lossy(&built.stderr));
    }
    let program = folder.join("swarm").with_extension(std::env::consts::EXE_EXTENSION);
    ensure!(program.is_file(), "cargo built no {}", program.display());
    Ok(program)
}

/// The `swarm` program built without training, which scripts/test.sh puts beside the other; `None`, with
/// a word about it, if it is not there and no `CI` is set.
///
/// # Errors
/// It is not there although `CI` is set.
pub fn replica() -> Result<Option<PathBuf>> {
    let program = profile_folder()?.join("swarm-replica").with_extension(std::env::consts::EXE_EXTENSION);
    if program.is_file() {
        return Ok(Some(program));
    }
    let why = format!("{} is not there: run ./scripts/test.sh, which builds it", program.display());
    ensure!(std::env::var_os("CI").is_none(), "{why}");
    skipped(&why);
    Ok(None)
}

/// Says that a test, or a part of it, was skipped, and why.
pub fn skipped(why: &str) {
    eprintln!("SKIPPED: {why}");
}
