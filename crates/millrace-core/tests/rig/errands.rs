//! One shell that runs the tests' commands. A test binary runs its tests as threads of one process, and a child that
//! is between fork and execve holds copies of all descriptors of that process: a port, a program or a ring that one test
//! has just closed would still be in use because another test starts `ip`. So this process forks once, before the first
//! test has opened anything.

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Mutex, OnceLock, PoisonError},
};

struct Shell {
    /// Ends with its input, that is with this process.
    _child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

fn shell() -> &'static Mutex<Shell> {
    static SHELL: OnceLock<Mutex<Shell>> = OnceLock::new();
    SHELL.get_or_init(|| {
        let mut child =
            Command::new("sh").arg("-s").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("sh");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Mutex::new(Shell { _child: child, input, output })
    })
}

/// Starts the shell, when it does not run yet. Each test does this first.
pub fn ready() {
    shell();
}

/// Runs a command: whether it succeeded, and all it printed. The shell's network namespace is the one this process
/// started in, whatever the calling thread's is.
pub fn run(words: &[&str]) -> (bool, String) {
    const END: &str = "<millrace-errand>";
    let mut command = String::new();
    for word in words {
        write!(command, "'{}' ", word.replace('\'', r"'\''")).unwrap();
    }
    let mut shell = shell().lock().unwrap_or_else(PoisonError::into_inner);
    writeln!(shell.input, "{command} </dev/null 2>&1; status=$?; echo; echo '{END}' $status")
        .expect("the shell listens");
    let mut text = String::new();
    loop {
        let mut said = String::new();
        assert_ne!(shell.output.read_line(&mut said).expect("text"), 0, "{words:?}: the shell ended");
        if let Some(status) = said.strip_prefix(END) {
            text.pop();
            return (status.trim() == "0", text);
        }
        text.push_str(&said);
    }
}
