//! A launch agent of macOS (launchd.plist(5)).

use super::Service;

/// The property list.
pub(super) fn agent(service: &Service) -> String {
    let program = escaped(&service.program.display().to_string());
    let config = escaped(&service.config.display().to_string());
    let label = service.label();
    let libraries = service.libraries.as_ref().map_or_else(String::new, |folders| {
        format!(
            "    <key>EnvironmentVariables</key>\n    <dict>\n        <key>DYLD_LIBRARY_PATH</key>\n        \
             <string>{}</string>\n    </dict>\n",
            escaped(folders)
        )
    });
    // ThrottleInterval: seconds between two starts. ExitTimeOut: what was trained is saved before it ends.
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
    <key>Label</key>
    <string>{label}</string>
    <key>ProgramArguments</key>
    <array>
        <string>{program}</string>
        <string>run</string>
        <string>--as-service</string>
        <string>--config</string>
        <string>{config}</string>
    </array>
{libraries}    <key>RunAtLoad</key>
    <true/>
    <key>KeepAlive</key>
    <dict>
        <key>SuccessfulExit</key>
        <false/>
    </dict>
    <key>ThrottleInterval</key>
    <integer>60</integer>
    <key>ExitTimeOut</key>
    <integer>150</integer>
    <key>ProcessType</key>
    <string>Background</string>
    <key>LowPriorityIO</key>
    <true/>
</dict>
</plist>
"#
    )
}

/// As text of an XML element.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
