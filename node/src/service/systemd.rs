//! A unit of the user's systemd (systemd.service(5), systemd.unit(5)).

use super::Service;

/// The unit.
pub(super) fn unit(service: &Service) -> String {
    let program = quoted(&service.program.display().to_string());
    let config = quoted(&service.config.display().to_string());
    let libraries = service.libraries.as_ref().map_or_else(String::new, |folders| {
        format!("Environment={}\n", quoted(&format!("LD_LIBRARY_PATH={folders}")))
    });
    format!(
        "[Unit]\n\
         Description=swarm: trains a model together with others while this device is not used\n\
         \n\
         [Service]\n\
         {libraries}\
         ExecStart={program} run --as-service --config {config}\n\
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
    )
}

/// As a word of a unit's line: `%` and `$` mean something there.
fn quoted(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    format!("\"{text}\"")
}
