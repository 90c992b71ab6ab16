//! Flags, variables and files that say the same, something else, or nothing of use.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, Args, Command};

use super::{File, Found, merge, template};

#[derive(Args)]
struct Flags {
    /// The file.
    #[arg(long)]
    config: Option<PathBuf>,
    /// The folder.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Texts. And a rather long explanation of what they are for, which has to be wrapped, as it is longer than a line.
    #[arg(long, value_name = "PATH")]
    data: Vec<PathBuf>,
    /// How often.
    #[arg(long, default_value_t = 300)]
    seconds: u32,
    /// A rate.
    #[arg(long)]
    max_upload: Option<String>,
    /// Silent.
    #[arg(long)]
    no_mdns: bool,
}

fn flags() -> Vec<Arg> {
    Flags::augment_args(Command::new("run")).get_arguments().cloned().collect()
}

fn given(arguments: &[&str]) -> Vec<OsString> {
    ["swarm", "run"].iter().chain(arguments).map(OsString::from).collect()
}

fn merged(arguments: &[&str], variables: &[(&str, &str)]) -> anyhow::Result<Found> {
    let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
    merge(given(arguments), &flags(), &flags(), &|name| variables.get(name).map(OsString::from))
}

fn words(found: &Found) -> Vec<String> {
    found.arguments.iter().skip(2).map(|argument| argument.to_string_lossy().into_owned()).collect()
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    std::fs::write(&path, "data = ['a', '/b']\nseconds = 10\nmax-upload = '1MB'\nno-mdns = true\n").unwrap();
    let folder = dir.path().to_str().unwrap();
    let config = ["--config", path.to_str().unwrap()];
    let found = merged(&[], &[]).unwrap();
    assert_eq!(words(&found), [""; 0]);
    // Named, or found in the folder; a path in it is relative to it.
    let paths = [format!("--data={folder}/a"), "--data=/b".to_owned()];
    let file = [&paths[..], &["--seconds=10", "--max-upload=1MB", "--no-mdns"].map(str::to_owned)].concat();
    let found = merged(&config, &[]).unwrap();
    assert_eq!(words(&found)[2..], file);
    let found = merged(&["--dir", folder], &[]).unwrap();
    assert_eq!(words(&found)[..4], ["--dir", folder, config[0], config[1]]);
    assert_eq!(words(&found)[4..], file);
    let found = merged(&[], &[("SWARM_CONFIG", config[1])]).unwrap();
    assert_eq!(words(&found)[2..], file);
    // The environment, one by one.
    let variables = [("SWARM_SECONDS", "20"), ("SWARM_DATA", "c;/d"), ("SWARM_NO_MDNS", "false")];
    let found = merged(&config, &variables).unwrap();
    assert_eq!(words(&found)[2..], ["--data=c", "--data=/d", "--seconds=20", "--max-upload=1MB"]);
    assert_eq!(found.from_environment, ["data", "seconds", "no-mdns"]);
    // A flag, in both forms.
    let line = [config[0], config[1], "--seconds", "30", "--max-upload=9kB", "--data", "e"];
    let found = merged(&line, &variables).unwrap();
    assert_eq!(words(&found)[7..], [""; 0]);
    // What follows two dashes is not a flag.
    let found = merged(&["--", "--seconds"], &[("SWARM_SECONDS", "20")]).unwrap();
    assert_eq!(words(&found), ["--seconds=20", "--", "--seconds"]);
}

#[test]
fn what_is_wrong_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    let config = ["--config", path.to_str().unwrap()];
    assert!(format!("{:#}", merged(&config, &[]).unwrap_err()).contains("cannot read"));
    for (text, words) in [
        ("secnods = 3", "there is no setting 'secnods'"),
        ("max_upload = '1MB'", "is max-upload meant?"),
        ("secs = 3", "there is no setting 'secs'"),
        ("seconds = ", "config.toml"),
        ("seconds = [3]", "must be a single value"),
        ("seconds = true", "must be a text or a number"),
        ("no-mdns = 'yes'", "must be true or false"),
        ("data = [['a']]", "must be a text or a number"),
        ("\u{0}", "config.toml"),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = format!("{:#}", merged(&config, &[]).unwrap_err());
        assert!(error.contains(words) && error.contains("config.toml"), "{text}: {error}");
    }
    std::fs::write(&path, b"\xff\xfe").unwrap();
    assert!(format!("{:#}", merged(&config, &[]).unwrap_err()).contains("not text"));
    let error = format!("{:#}", merged(&[], &[("SWARM_NO_MDNS", "perhaps")]).unwrap_err());
    assert!(error.contains("SWARM_NO_MDNS is 'perhaps'"), "{error}");
}

#[test]
fn what_has_changed_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    let read = |text: &str| {
        std::fs::write(&path, text).unwrap();
        File::read(&path, &flags()).unwrap()
    };
    let before = read("seconds = 3\nno-mdns = true\ndir = 'x'\n");
    let after = read("seconds = 4\ndata = ['a']\ndir = 'x'\n");
    let mut changed: Vec<&str> = after.changed(&before).collect();
    changed.sort_unstable();
    assert_eq!(changed, ["data", "no-mdns", "seconds"]);
    assert_eq!(after.changed(&after).count(), 0);
}

/// It says nothing but what it is told to, and with every comment taken away it still is a file of settings.
#[test]
fn a_template_can_be_read_with_and_without_its_comments() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    let text = template(&flags(), &[("max-upload", "\"200kB\"".to_owned())]);
    assert!(text.lines().all(|line| line.chars().count() <= 110), "{text}");
    std::fs::write(&path, &text).unwrap();
    let file = File::read(&path, &flags()).unwrap();
    assert_eq!(file.keys().collect::<Vec<_>>(), ["max-upload"]);
    let bare: String = text
        .lines()
        .filter_map(|line| line.strip_prefix("# ").or(Some(line)))
        .filter(|line| {
            line.split(" = ").next().is_some_and(|key| flags().iter().any(|f| f.get_long() == Some(key)))
        })
        .map(|line| format!("{line}\n"))
        .collect();
    std::fs::write(&path, &bare).unwrap();
    let file = File::read(&path, &flags()).unwrap();
    assert_eq!(file.keys().count(), 5, "all but config itself: {bare}");
    for flag in flags() {
        file.arguments(&flag).unwrap();
    }
    assert!(bare.contains("seconds = 300\n") && bare.contains("data = [\"PATH\"]\n"), "{bare}");
}
