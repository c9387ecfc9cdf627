//! The command line: arguments → [`RunConfig`], report → text or JSON. The doc comments of [`Cli`] are the text of `--help`.

use std::{net::IpAddr, process::ExitCode};

use clap::{Parser, error::ErrorKind};
use millrace_blast::{
    Code, Gso, Mac, Payload, Result, RunConfig, RunReport, Sizes, Via, parse_ports, parse_rate,
    payload::{Endian, PayloadArgument},
    run, stop_on_signals,
};

const EXAMPLES: &str = "\
Examples:
  millrace-blast 127.0.0.1:9000                               5 s of numbered 100-byte datagrams, as fast as it goes
  millrace-blast 127.0.0.1:9000 --rate 200k --count 1000000   exactly a million, evenly spread over 5 s
  millrace-blast [::1]:9000 --size 64..1472 --flows 40        40 source ports, sizes cycled
  millrace-blast 192.0.2.2:9000 --via xdp --interface va      raw frames through AF_XDP
  millrace-blast 192.0.2.2 --ports 9000-9003 --payload counter@4 --payload hex:01020304ffffffff --size 64
  millrace-blast 127.0.0.1:9000 --seconds 2 --json --quiet    one JSON object on stdout

Exit status: 0 done, 1 failed, 2 wrong usage.";

/// Sends numbered UDP datagrams at a steady rate, and accounts for every one of them.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
struct Cli {
    /// Where to: HOST:PORT, [IPV6]:PORT, or HOST with --ports
    target: String,
    /// Datagrams a second: 500, 200k, 1.5M; 0 or "unpaced": as fast as it goes
    #[arg(long, default_value = "0", value_parser = parse_rate)]
    rate: u64,
    /// End after this many datagrams
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// End after this many seconds [default: 5 unless --count is given]
    #[arg(long, value_name = "S")]
    seconds: Option<f64>,
    /// Payload bytes: 100, or 64..1472 (cycled, both ends included) [default: length of hex/file bytes, else 100]
    #[arg(long)]
    size: Option<Sizes>,
    /// Flows, each with a source port of its own [default: one per thread and destination port]
    #[arg(long, value_name = "N")]
    flows: Option<u32>,
    /// Destination ports, taken in turn by the flows: 9000,9001 or 9000-9003 [default: the target's]
    #[arg(long, value_name = "LIST")]
    ports: Option<String>,
    /// counter@OFFSET, and one of random, hex:DIGITS, file:PATH (repeated to the size); give it twice to combine.
    /// [default: counter@0 over a pattern that the receiver can recompute]
    #[arg(long, value_name = "KIND")]
    payload: Vec<PayloadArgument>,
    /// Bytes of the counter: 4 or 8
    #[arg(long, default_value_t = 4, value_name = "4|8", value_parser = clap::value_parser!(u8).range(4..=8))]
    counter_width: u8,
    /// Byte order of the counter: be or le
    #[arg(long, default_value_t = Endian::Be, value_name = "be|le", value_parser = endian)]
    counter_endian: Endian,
    /// Number of the first datagram
    #[arg(long, default_value_t = 0, value_name = "N")]
    start: u64,
    /// The way out: UDP sockets, AF_PACKET or AF_XDP (the last two need CAP_NET_RAW)
    #[arg(long, value_enum, default_value_t = Via::Socket)]
    via: Via,
    /// Interface to send on [default: the route's]
    #[arg(long, value_name = "IF")]
    interface: Option<String>,
    /// Source address [default: the route's; raw paths may invent one]
    #[arg(long, value_name = "IP")]
    src_ip: Option<IpAddr>,
    /// Source port of the first flow, counting up [default: the kernel's choice; 49152 on raw paths]
    #[arg(long, value_name = "PORT")]
    src_port: Option<u16>,
    /// Source MAC on raw paths [default: the interface's]
    #[arg(long, value_name = "MAC")]
    src_mac: Option<Mac>,
    /// Destination MAC on raw paths [default: the neighbour's]
    #[arg(long, value_name = "MAC")]
    dst_mac: Option<Mac>,
    /// UDP GSO: segments a send (1 to 64), off, or auto (on for loopback)
    #[arg(long, default_value = "auto", value_name = "N|off|auto")]
    gso: Gso,
    /// Messages or frames a system call, 1 to 1024
    #[arg(long, default_value_t = 64, value_name = "N")]
    batch: u32,
    /// Sending threads
    #[arg(long, default_value_t = 1, value_name = "N")]
    threads: u32,
    /// Interface queue of the first thread (--via xdp)
    #[arg(long, default_value_t = 0, value_name = "N")]
    queue: u32,
    /// Go through the interface's queueing discipline (--via packet)
    #[arg(long)]
    qdisc: bool,
    /// Seed of the random payload
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Report as one JSON object on stdout
    #[arg(long)]
    json: bool,
    /// No progress line every second
    #[arg(long)]
    quiet: bool,
}

fn endian(text: &str) -> std::result::Result<Endian, String> {
    match text {
        "be" => Ok(Endian::Be),
        "le" => Ok(Endian::Le),
        _ => Err(format!("counter byte order {text:?}: expected be or le")),
    }
}

impl Cli {
    fn config(self) -> Result<RunConfig> {
        Ok(RunConfig {
            rate: self.rate,
            count: self.count,
            seconds: self.seconds,
            sizes: self.size,
            flows: self.flows,
            ports: self.ports.as_deref().map(parse_ports).transpose()?.unwrap_or_default(),
            payload: Payload::from_arguments(&self.payload, self.counter_width, self.counter_endian)?,
            start: self.start,
            via: self.via,
            interface: self.interface,
            src_ip: self.src_ip,
            src_port: self.src_port,
            src_mac: self.src_mac,
            dst_mac: self.dst_mac,
            gso: self.gso,
            batch: self.batch,
            threads: self.threads,
            seed: self.seed,
            qdisc_bypass: !self.qdisc,
            queue: self.queue,
            ..RunConfig::to(self.target)
        })
    }
}

pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) if matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            // Nothing can be reported when stdout is closed.
            let _ = e.print();
            return ExitCode::SUCCESS;
        }
        Err(e) => {
            eprintln!("{}", one_line(&e.to_string()));
            return ExitCode::from(2);
        }
    };
    let (json, quiet) = (cli.json, cli.quiet);
    match cli.config().and_then(|config| blast(&config, quiet)) {
        Ok(report) => print(&report, json),
        Err(e) => {
            eprintln!("{e}");
            ExitCode::from(if e.code == Code::Config { 2 } else { 1 })
        }
    }
}

fn blast(config: &RunConfig, quiet: bool) -> Result<RunReport> {
    run(config, stop_on_signals(), |progress| {
        if !quiet {
            eprintln!("{progress}");
        }
    })
}

fn print(report: &RunReport, json: bool) -> ExitCode {
    use std::io::Write;
    let text = if json {
        match serde_json::to_string(report) {
            Ok(text) => text + "\n",
            Err(e) => {
                eprintln!("MILLRACE_E_STATE: report as JSON: {e}");
                return ExitCode::FAILURE;
            }
        }
    } else {
        report.to_string()
    };
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("MILLRACE_E_KERNEL: writing the report to stdout: {e}");
            ExitCode::FAILURE
        }
    }
}

/// clap's paragraphs as one line with our code.
fn one_line(text: &str) -> String {
    let about = text.split("\n\n").next().unwrap_or(text);
    let words = about.split_whitespace().collect::<Vec<_>>().join(" ");
    let words = words.trim_start_matches("error: ");
    match words.find("MILLRACE_E_CONFIG: ") {
        // Our own parsers' text is complete without clap's preamble.
        Some(at) => words[at..].to_owned(),
        None => format!("MILLRACE_E_CONFIG: {words}; see --help"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn bad_usage_is_one_line() {
        for args in [
            &["x"][..],
            &["x", "h:1", "--rate", "fast"],
            &["x", "h:1", "--size", "9..1"],
            &["x", "h:1", "--nonsense"],
            &["x", "h:1", "--payload", "noise"],
            &["x", "h:1", "--via", "pigeon"],
            &["x", "h:1", "--counter-endian", "middle"],
        ] {
            let line = one_line(&Cli::try_parse_from(args).unwrap_err().to_string());
            assert!(line.starts_with("MILLRACE_E_CONFIG: ") && !line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn defaults_are_the_librarys() {
        let config = Cli::try_parse_from(["x", "h:1"]).unwrap().config().unwrap();
        assert_eq!(config, RunConfig::to("h:1"));
    }
}
