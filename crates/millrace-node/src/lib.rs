//! Node-API binding: free functions with integer handles, no logic.
//!
//! Structures cross as JSON; `src/generated/contract.ts` has their TypeScript types. Errors cross as `napi::Error` whose
//! reason is `MILLRACE_E_…: text`; `src/errors.ts` turns it into a class. The main thread opens, attaches, starts and stops
//! engines; a worker only opens and closes its queue's wake-up.

pub mod rules;

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use millrace_core::{
    config::EngineConfig,
    engine::{self, Engine, preflight},
    error::{Code, Error},
    lane::LAYOUT,
};
use napi::{
    Env, Result, Status,
    bindgen_prelude::{Function, Uint8Array},
    threadsafe_function::ThreadsafeFunctionCallMode,
};
use napi_derive::napi;

/// Engines by handle. They are process-wide, because workers reach them too and receive threads belong to no environment.
static ENGINES: Mutex<Option<HashMap<u32, Arc<Mutex<Engine>>>>> = Mutex::new(None);
static NEXT_HANDLE: AtomicU32 = AtomicU32::new(1);

thread_local! {
    /// The typed arrays behind each engine's lanes. The thread that attached them holds them, so that they are collected
    /// only after `closeEngine`, when no receive thread is left.
    static MEMORY: RefCell<HashMap<u32, Vec<Uint8Array>>> = RefCell::default();
}

fn engines() -> MutexGuard<'static, Option<HashMap<u32, Arc<Mutex<Engine>>>>> {
    ENGINES.lock().unwrap_or_else(PoisonError::into_inner)
}

fn error(e: Error) -> napi::Error {
    napi::Error::new(Status::GenericFailure, e.to_string())
}

/// The open engine with this handle.
fn open(handle: u32) -> Result<Arc<Mutex<Engine>>> {
    let found = engines().as_ref().and_then(|m| m.get(&handle).cloned());
    found.ok_or_else(|| error(Error::new(Code::State, format!("engine handle {handle} is not open"))))
}

fn with<T>(handle: u32, f: impl FnOnce(&mut Engine) -> T) -> Result<T> {
    let engine = open(handle)?;
    let mut engine = engine.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(f(&mut engine))
}

fn json<T: serde::Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|e| error(Error::new(Code::State, e.to_string())))
}

/// The lane layout as a JSON object of byte offsets. It must equal `src/generated/layout.ts`, which `src/native.ts` asserts.
#[napi]
pub fn layout() -> Result<String> {
    json(&LAYOUT.iter().copied().collect::<HashMap<_, _>>())
}

/// Returns what this machine allows for a configuration (`EngineConfig`) as a `PreflightReport`. It opens and closes what can
/// be tried without effect on others.
#[napi]
pub fn check_host(config: String) -> Result<String> {
    json(&preflight::run(&EngineConfig::from_json(&config).map_err(error)?))
}

/// Opens a backend for a configuration (`EngineConfig`). Returns the handle.
#[napi]
pub fn open_engine(env: Env, config: String) -> Result<u32> {
    let engine = EngineConfig::from_json(&config).and_then(Engine::open).map_err(error)?;
    let handle = NEXT_HANDLE.fetch_add(1, Ordering::Relaxed);
    engines().get_or_insert_default().insert(handle, Arc::new(Mutex::new(engine)));
    // An environment that is torn down without closing frees the lanes' memory: the threads must be gone by then. After
    // process.exit no hook runs, and the threads end with the process.
    env.add_env_cleanup_hook(handle, close_engine)?;
    Ok(handle)
}

/// Returns what was opened and how much memory each queue needs, as an `EngineDescription`.
#[napi]
pub fn describe_engine(handle: u32) -> Result<String> {
    with(handle, |e| json(&e.describe()))?
}

/// Gives a queue its memory, a Uint8Array over a zeroed SharedArrayBuffer of `EngineDescription.queueBytes`. Returns where
/// things lie in it: a `QueueLayout`.
#[napi]
pub fn attach_queue(handle: u32, queue: u32, memory: Uint8Array) -> Result<String> {
    let (base, length) = (memory.as_ptr().cast_mut(), memory.len());
    // SAFETY: `memory` holds a reference to the array until `close_engine` drops it, after the engine's threads ended;
    // JavaScript allocated it for this queue alone, zeroed.
    let layout = with(handle, |e| unsafe { e.attach(queue as usize, base, length) })?.map_err(error)?;
    MEMORY.with_borrow_mut(|m| m.entry(handle).or_default().push(memory));
    json(&layout)
}

/// Registers the calling worker's wake-up for a queue: called without arguments, at most once per armed flag.
#[napi]
pub fn open_queue(
    handle: u32,
    queue: u32,
    #[napi(ts_arg_type = "() => void")] wake: Function<'_, (), ()>,
) -> Result<()> {
    // Weak, because a sleeping worker's wake-up alone must not keep its event loop alive.
    let wake = wake.build_threadsafe_function::<()>().weak::<true>().callee_handled::<false>().build()?;
    let wake = Arc::new(move || {
        // A status other than Ok means the worker is going away; its restart drains the lanes first.
        let _ = wake.call((), ThreadsafeFunctionCallMode::NonBlocking);
    });
    with(handle, |e| e.set_wake(queue as usize, Some(wake)))?.map_err(error)
}

/// Withdraws a queue's wake-up; when it returns no receive thread will call it. Unknown handles are ignored, because a
/// worker may end after the engine.
#[napi]
pub fn close_queue(handle: u32, queue: u32) -> Result<()> {
    match open(handle) {
        Ok(_) => with(handle, |e| e.set_wake(queue as usize, None))?.map_err(error),
        Err(_) => Ok(()),
    }
}

/// Starts the receive threads.
#[napi]
pub fn start_engine(handle: u32) -> Result<()> {
    with(handle, Engine::start)?.map_err(error)
}

/// Puts other rules in force while the engine runs; returns their generation. When it throws, the old rules stay.
#[napi]
pub fn reload_rules(handle: u32, text: String) -> Result<f64> {
    with(handle, |e| e.reload(&text))?.map(|generation| generation as f64).map_err(error)
}

/// Stops arrivals, empties the kernel's rings into the lanes and joins the threads; blocks for at most about 2 s.
#[napi]
pub fn stop_engine(handle: u32) -> Result<()> {
    with(handle, Engine::stop)
}

/// The data plane's half of the books: `EngineStats`.
#[napi]
pub fn engine_stats(handle: u32) -> Result<String> {
    with(handle, |e| json(&e.stats()))?
}

/// Stops the engine if needed and releases its memory. Unknown handles are ignored.
#[napi]
pub fn close_engine(handle: u32) {
    let removed = engines().as_mut().and_then(|m| m.remove(&handle));
    if let Some(engine) = removed {
        engine.lock().unwrap_or_else(PoisonError::into_inner).stop();
    }
    // At thread exit the thread-local may be gone already, and with it the arrays.
    let _ = MEMORY.try_with(|m| m.borrow_mut().remove(&handle));
}

/// CPUs this thread may run on.
#[napi]
pub fn allowed_cpus() -> Result<Vec<u32>> {
    Ok(engine::allowed_cpus().map_err(error)?.into_iter().map(|c| c as u32).collect())
}

/// Pins the calling thread to one CPU.
#[napi]
pub fn pin_thread(cpu: u32) -> Result<()> {
    engine::pin_thread(cpu as usize).map_err(error)
}
