//! A task of the Windows task scheduler (Task Scheduler Schema, version 1.2).

use super::Service;
use super::launchd::escaped;

/// The task. It has no limit of time, and is not stopped on battery: that is the governor's business.
pub(super) fn task(service: &Service) -> String {
    let program = escaped(&service.program.display().to_string());
    let config = escaped(&service.config.display().to_string());
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<Task version="1.2" xmlns="http://schemas.microsoft.com/windows/2004/02/mit/task">
  <RegistrationInfo>
    <Description>swarm: trains a model together with others while this device is not used</Description>
  </RegistrationInfo>
  <Triggers>
    <LogonTrigger>
      <Enabled>true</Enabled>
    </LogonTrigger>
  </Triggers>
  <Settings>
    <MultipleInstancesPolicy>IgnoreNew</MultipleInstancesPolicy>
    <DisallowStartIfOnBatteries>false</DisallowStartIfOnBatteries>
    <StopIfGoingOnBatteries>false</StopIfGoingOnBatteries>
    <ExecutionTimeLimit>PT0S</ExecutionTimeLimit>
    <Priority>9</Priority>
    <RestartOnFailure>
      <Interval>PT1M</Interval>
      <Count>255</Count>
    </RestartOnFailure>
  </Settings>
  <Actions>
    <Exec>
      <Command>{program}</Command>
      <Arguments>run --as-service --config &quot;{config}&quot;</Arguments>
    </Exec>
  </Actions>
</Task>
"#
    )
}
