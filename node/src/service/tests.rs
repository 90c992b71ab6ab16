//! The texts, whole and with paths that mean something to those who read them.

use std::path::{Path, PathBuf};

use super::{Service, System};

fn plain() -> Service {
    Service::new("swarm", "/usr/bin/swarm".into(), "/home/ada/swarm/config.toml".into(), None).unwrap()
}

#[test]
fn a_unit_for_systemd() {
    assert_eq!(
        plain().text(System::Systemd),
        "[Unit]\n\
         Description=swarm: trains a model together with others while this device is not used\n\
         \n\
         [Service]\n\
         ExecStart=\"/usr/bin/swarm\" run --as-service --config \"/home/ada/swarm/config.toml\"\n\
         # The program asks for the lowest priority itself; this is for what it reads and writes.\n\
         IOSchedulingClass=idle\n\
         # A failure may pass (no network yet, a full disk); swarm stop is none.\n\
         Restart=on-failure\n\
         RestartSec=60\n\
         # What was trained is saved before it ends.\n\
         TimeoutStopSec=150\n\
         \n\
         [Install]\n\
         WantedBy=default.target\n"
    );
    let home = Path::new("/home/ada");
    let place = plain().place(System::Systemd, home, None);
    assert_eq!(place, Path::new("/home/ada/.config/systemd/user/swarm.service"));
    let elsewhere = plain().place(System::Systemd, home, Some(Path::new("/etc/ada")));
    assert_eq!(elsewhere, Path::new("/etc/ada/systemd/user/swarm.service"));
    let lines: Vec<String> = plain().install(System::Systemd, &place).iter().map(super::Step::line).collect();
    assert_eq!(lines, ["systemctl --user daemon-reload", "systemctl --user enable --now swarm"]);
    let lines: Vec<String> =
        plain().uninstall(System::Systemd, &place).iter().map(super::Step::line).collect();
    assert_eq!(lines, ["systemctl --user disable --now swarm"]);
}

#[test]
fn what_a_path_holds_means_nothing_to_the_system() {
    let libraries = Some("/opt/a b:/opt/$x".to_owned());
    let odd =
        Service::new("lab-2", "/opt/100%/a \"b\"/swarm".into(), "/home/$USER/<x>&y\\.toml".into(), libraries)
            .unwrap();
    let unit = odd.text(System::Systemd);
    for line in [
        r#"ExecStart="/opt/100%%/a \"b\"/swarm" run --as-service --config "/home/$$USER/<x>&y\\.toml""#,
        r#"Environment="LD_LIBRARY_PATH=/opt/a b:/opt/$$x""#,
    ] {
        assert!(unit.lines().any(|found| found == line), "{line}: {unit}");
    }
    let agent = odd.text(System::Launchd);
    for line in [
        "<string>/opt/100%/a &quot;b&quot;/swarm</string>",
        "<string>/home/$USER/&lt;x&gt;&amp;y\\.toml</string>",
        "<string>/opt/a b:/opt/$x</string>",
        "<string>swarm.lab-2</string>",
    ] {
        assert!(agent.lines().any(|found| found.trim() == line), "{line}: {agent}");
    }
    let task = odd.text(System::Windows);
    let line =
        "<Arguments>run --as-service --config &quot;/home/$USER/&lt;x&gt;&amp;y\\.toml&quot;</Arguments>";
    assert!(task.contains(line), "{task}");
    assert!(task.contains("<Command>/opt/100%/a &quot;b&quot;/swarm</Command>"), "{task}");
}

/// What is opened is closed, in the right order: enough for texts that have no more than elements.
#[test]
fn agents_and_tasks_are_whole_xml() {
    for system in [System::Launchd, System::Windows] {
        let text = plain().text(system);
        let mut open: Vec<&str> = Vec::new();
        for tag in text.split('<').skip(1).filter_map(|part| part.split_once('>').map(|(tag, _)| tag)) {
            match tag.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name), "{text}"),
                None if tag.starts_with(['?', '!']) || tag.ends_with('/') => {}
                None => open.push(tag.split_whitespace().next().unwrap()),
            }
        }
        assert!(open.is_empty(), "{open:?}: {text}");
    }
    let place = plain().place(System::Launchd, Path::new("/Users/ada"), None);
    assert_eq!(place, Path::new("/Users/ada/Library/LaunchAgents/swarm.swarm.plist"));
}

#[test]
fn names_and_paths_that_could_be_something_else_are_refused() {
    let path = || PathBuf::from("/x");
    for name in ["", "a b", "../x", "-x", "x.service", "ä", &"x".repeat(65)] {
        let error = Service::new(name, path(), path(), None).unwrap_err().to_string();
        assert!(error.contains("letters, digits and dashes"), "{name}: {error}");
    }
    let error = Service::new("x", "/a\n[Install]".into(), path(), None).unwrap_err().to_string();
    assert!(error.contains("plain text"), "{error}");
}
