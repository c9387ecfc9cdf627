//! The two settings of an interface that preferred busy-polling wants (Documentation/networking/napi.rst, "IRQ
//! mitigation"): how often the NIC's interrupt stays masked without work, and for how long. Set only when asked for, put
//! back when the engine closes. They outlive a process that is killed, so the start line says what they were.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
};

use crate::{config::EngineConfig, net::Interface, rx::BackendInfo};

/// A setting that is asked for: its name in sysfs, its variable, its value.
type Asked = (&'static str, &'static str, u32);

/// What the configuration asks for.
pub(crate) fn asked(config: &EngineConfig) -> impl Iterator<Item = Asked> {
    let all = [
        ("napi_defer_hard_irqs", "MILLRACE_NAPI_DEFER_HARD_IRQS", config.napi_defer_hard_irqs),
        ("gro_flush_timeout", "MILLRACE_GRO_FLUSH_TIMEOUT", config.gro_flush_timeout),
    ];
    all.into_iter().filter_map(|(name, variable, value)| Some((name, variable, value?)))
}

/// Settings of ours on an interface; dropping puts back what was there.
#[derive(Default)]
pub(super) struct Knobs(Vec<Knob>);

struct Knob {
    /// Kept open: it stays this interface's, whatever name and namespace that has when it is put back.
    file: File,
    ours: u32,
    before: String,
}

impl Knobs {
    /// Sets what is asked for, and says how it went.
    pub(super) fn set(config: &EngineConfig, interface: &Interface, info: &mut BackendInfo) -> Self {
        let mut knobs = Knobs::default();
        for (name, _, value) in asked(config) {
            match Knob::set(interface, name, value) {
                Ok(knob) => {
                    let was = format!(
                        "{value} (was {}; put back at the end, a killed process leaves it)",
                        knob.before
                    );
                    info.granted.push((name.into(), was));
                    knobs.0.push(knob);
                }
                Err(e) => info.degraded.push(refused(interface, name, value, &e)),
            }
        }
        knobs
    }
}

impl Knob {
    fn set(interface: &Interface, name: &str, value: u32) -> io::Result<Self> {
        let file = open(interface, name)?;
        let before = read(&file)?;
        let knob = Knob { file, ours: value, before };
        // From here on a failure puts back what was there.
        knob.file.write_all_at(value.to_string().as_bytes(), 0)?;
        let now = read(&knob.file)?;
        if now != value.to_string() {
            return Err(io::Error::other(format!("it reads {now} afterwards")));
        }
        Ok(knob)
    }
}

impl Drop for Knob {
    fn drop(&mut self) {
        // Somebody else's value stays. An interface that is gone needs nothing.
        if read(&self.file).is_ok_and(|now| now == self.ours.to_string()) {
            let _ = self.file.write_all_at(self.before.as_bytes(), 0);
        }
    }
}

/// Whether a setting could be made, found out by writing what is there already.
///
/// # Errors
/// Why not, for people.
pub(crate) fn trial(interface: &Interface, name: &str, value: u32) -> Result<String, String> {
    let rewrite = || {
        let file = open(interface, name)?;
        let now = read(&file)?;
        file.write_all_at(now.as_bytes(), 0)?;
        Ok(now)
    };
    rewrite().map_err(|e| refused(interface, name, value, &e))
}

fn open(interface: &Interface, name: &str) -> io::Result<File> {
    let folder = format!("/sys/class/net/{}", interface.name);
    // /sys shows the network namespace it was mounted in, perhaps with another interface of this name.
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

fn refused(interface: &Interface, name: &str, value: u32, e: &io::Error) -> String {
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
