//! The two settings of an interface that preferred busy-polling needs (napi.rst, "IRQ mitigation"): `napi_defer_hard_irqs`,
//! how often in a row the NIC's interrupt stays masked without work, and `gro_flush_timeout`, for how long, in ns. They are
//! set only when they are configured, and restored when the engine closes. They outlive a process that is killed, so that
//! the start line says what they were.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
};

use crate::{config::EngineConfig, net::Interface, rx::BackendInfo};

/// A setting that is configured: its name in sysfs, its environment variable, its value.
type Requested = (&'static str, &'static str, u32);

/// The settings that the configuration names.
pub(crate) fn requested(config: &EngineConfig) -> impl Iterator<Item = Requested> {
    let all = [
        ("napi_defer_hard_irqs", "MILLRACE_NAPI_DEFER_HARD_IRQS", config.napi_defer_hard_irqs),
        ("gro_flush_timeout", "MILLRACE_GRO_FLUSH_TIMEOUT", config.gro_flush_timeout),
    ];
    all.into_iter().filter_map(|(name, variable, value)| Some((name, variable, value?)))
}

/// Settings made on an interface; dropping them restores the values from before.
#[derive(Default)]
pub(super) struct NapiSettings(Vec<NapiSetting>);

struct NapiSetting {
    /// The file in sysfs. It is kept open, because it stays the file of this interface whatever name and namespace the
    /// interface has when the value is restored.
    file: File,
    value: u32,
    before: String,
}

impl NapiSettings {
    /// Makes the settings of the configuration, and enters in `info` which were granted and which were not.
    pub(super) fn set(config: &EngineConfig, interface: &Interface, info: &mut BackendInfo) -> Self {
        let mut settings = NapiSettings::default();
        for (name, _, value) in requested(config) {
            match NapiSetting::set(interface, name, value) {
                Ok(setting) => {
                    let was = format!(
                        "{value} (was {}; put back at the end, a killed process leaves it)",
                        setting.before
                    );
                    info.granted.push((name.into(), was));
                    settings.0.push(setting);
                }
                Err(e) => info.degraded.push(refusal(interface, name, value, &e)),
            }
        }
        settings
    }
}

impl NapiSetting {
    fn set(interface: &Interface, name: &str, value: u32) -> io::Result<Self> {
        let file = open(interface, name)?;
        let before = read(&file)?;
        let setting = NapiSetting { file, value, before };
        // From here on a failure restores the value from before, because `setting` is dropped.
        setting.file.write_all_at(value.to_string().as_bytes(), 0)?;
        let now = read(&setting.file)?;
        if now != value.to_string() {
            return Err(io::Error::other(format!("it reads {now} afterwards")));
        }
        Ok(setting)
    }
}

impl Drop for NapiSetting {
    fn drop(&mut self) {
        // A value that was set by another program meanwhile stays. Of an interface that was removed the file cannot be read.
        if read(&self.file).is_ok_and(|now| now == self.value.to_string()) {
            let _ = self.file.write_all_at(self.before.as_bytes(), 0);
        }
    }
}

/// Tries whether a setting could be made, by writing the value that is there already, and returns that value.
///
/// # Errors
/// The sentence for the user that explains why it could not.
pub(crate) fn probe(interface: &Interface, name: &str, value: u32) -> Result<String, String> {
    let rewrite = || {
        let file = open(interface, name)?;
        let now = read(&file)?;
        file.write_all_at(now.as_bytes(), 0)?;
        Ok(now)
    };
    rewrite().map_err(|e| refusal(interface, name, value, &e))
}

fn open(interface: &Interface, name: &str) -> io::Result<File> {
    let folder = format!("/sys/class/net/{}", interface.name);
    // /sys shows the network namespace it was mounted in, where another interface may have this name.
    let index = fs::read_to_string(format!("{folder}/ifindex"))?;
    if index.trim() != interface.index.to_string() {
        return Err(io::Error::other("/sys belongs to another network namespace"));
    }
    OpenOptions::new().read(true).write(true).open(format!("{folder}/{name}"))
}

fn read(file: &File) -> io::Result<String> {
    let mut text = [0; 32];
    let length = file.read_at(&mut text, 0)?;
    Ok(String::from_utf8_lossy(&text[..length]).trim().to_owned())
}

fn refusal(interface: &Interface, name: &str, value: u32, e: &io::Error) -> String {
    let why = match e.raw_os_error() {
        Some(libc::EROFS) => "/sys is read-only here, as in a pod that is not privileged",
        Some(libc::EPERM | libc::EACCES) => "it needs CAP_NET_ADMIN",
        Some(libc::ENOENT) => "there is no such setting in /sys here (napi_defer_hard_irqs: Linux 5.8)",
        _ => "it was refused",
    };
    format!(
        "{name} of {} was left alone: {why} ({e}); set it on the host: echo {value} > /sys/class/net/{}/{name}",
        interface.name, interface.name
    )
}
