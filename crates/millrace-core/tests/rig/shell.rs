//! One shell that runs the commands of all tests of a binary.
//!
//! A test binary runs its tests as threads of one process, and a child that is between fork(2) and execve(2) holds copies
//! of all descriptors of that process: a port, a program or a ring that one test has just closed would still be in use
//! because another test starts `ip`. So this process forks once, before the first test has opened anything.

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Mutex, OnceLock, PoisonError},
};

struct Shell {
    /// It ends when its standard input is closed, which is when this process ends.
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

/// Starts the shell unless it runs already. [`super::require_root`] does this before the test opens anything.
pub fn start() {
    shell();
}

/// Runs a command and waits for it; returns whether it succeeded, and its standard output and standard error together.
/// The command runs in the network namespace that this process started in, whatever the calling thread's is.
pub fn try_run(words: &[&str]) -> (bool, String) {
    const END: &str = "<end of command>";
    let mut command = String::new();
    for word in words {
        write!(command, "'{}' ", word.replace('\'', r"'\''")).unwrap();
    }
    let mut shell = shell().lock().unwrap_or_else(PoisonError::into_inner);
    writeln!(shell.input, "{command} </dev/null 2>&1; status=$?; echo; echo '{END}' $status")
        .expect("the shell reads its input");
    let mut text = String::new();
    loop {
        let mut line = String::new();
        assert_ne!(shell.output.read_line(&mut line).expect("text"), 0, "{words:?}: the shell ended");
        if let Some(status) = line.strip_prefix(END) {
            text.pop();
            return (status.trim() == "0", text);
        }
        text.push_str(&line);
    }
}

/// Runs a command whose words have no spaces; panics with its output when it fails.
pub fn run(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (succeeded, output) = try_run(&words);
    assert!(succeeded, "{line}: {output}");
    output
}
