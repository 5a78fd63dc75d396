//! The commands. Each one a function from its arguments to an exit code.

pub mod caller;
pub mod check;
mod dashboard;
pub mod demo;
mod engine;
mod manual;
mod operate;
pub mod outputs;
mod remote;
pub mod run;
pub mod sandbox;
pub mod serve;
pub mod store;
mod told;

use std::io::{self, Write as _, stderr, stdout};
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::clock::Duration;
use crate::exchange::site::Origin;
use crate::sandbox::Options;
use outputs::LogFormat;

/// Everything went well.
pub const FINE: i32 = 0;
/// Refused: bad settings, a port taken.
pub const REFUSED: i32 = 1;

#[derive(Parser)]
#[command(
    name = "msp-gateway",
    version,
    about = "One local endpoint in front of wiv and N-able: caches, stable pagination, one answer from both",
    arg_required_else_help = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start simulated vendors and the gateway, with nothing to set up
    Demo {
        /// Where callers connect
        #[arg(long, default_value = "127.0.0.1:8080")]
        public: SocketAddr,
        /// Where operators and Prometheus connect
        #[arg(long, default_value = "127.0.0.1:9180")]
        admin: SocketAddr,
        /// Where browsers find the dashboard; without it, 127.0.0.1:8081, or any port if that is
        /// taken
        #[arg(long)]
        dashboard: Option<SocketAddr>,
        /// One more origin whose web pages may call the gateway, such as http://localhost:3000; may
        /// be repeated
        #[arg(long = "cors-origin", value_name = "ORIGIN", value_parser = origin)]
        cors_origins: Vec<Origin>,
        /// How many gateways; more than one share a Valkey or Redis, which must be on the path
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=9))]
        replicas: u8,
        /// The form of log lines; without it, text on a terminal and JSON elsewhere
        #[arg(long, value_enum)]
        log_format: Option<LogFormat>,
    },
    /// Run the gateway against the real vendors
    Serve {
        /// The settings, - for standard input
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The form of log lines; without it, text on a terminal and JSON elsewhere
        #[arg(long, value_enum)]
        log_format: Option<LogFormat>,
    },
    /// Run simulated vendors
    Sandbox {
        /// Where to listen
        #[arg(long, default_value = "127.0.0.1:7070")]
        listen: SocketAddr,
        /// The same seed makes the same customers and cases
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How many cases
        #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
        cases: u32,
        /// Requests per minute that each vendor admits; 0 means unlimited
        #[arg(long, default_value_t = 600)]
        requests_per_minute: u32,
        /// How long wiv keeps a scroll that nobody continues, in seconds
        #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=86_400))]
        scroll_idle: u32,
    },
    /// Validate settings and show the ones in force
    Check(check::Check),
    #[command(flatten)]
    Operate(operate::Operate),
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, as roff
    Man,
    /// Create caller keys
    Caller {
        #[command(subcommand)]
        command: CallerCommand,
    },
    /// Check or remove the store on disk, while no gateway uses it
    Store {
        #[command(subcommand)]
        command: StoreCommand,
    },
}

#[derive(Subcommand)]
enum StoreCommand {
    /// Read every record, and print how many there are and how many can be opened
    Check {
        /// The settings, - for standard input
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Remove every file of the store
    Wipe {
        /// The settings, - for standard input
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
}

#[derive(Subcommand)]
enum CallerCommand {
    /// Print a new caller key and its stanza for the settings file
    New {
        /// The caller's name in logs and metrics
        name: String,
        /// Customer ids it may see, separated by commas; without it, all
        #[arg(long)]
        customers: Option<String>,
        /// reader or operator
        #[arg(long)]
        role: Option<String>,
    },
}

/// An origin on the command line, in the words of the settings.
fn origin(text: &str) -> Result<Origin, String> {
    Origin::parse(text).ok_or_else(|| {
        "an origin must be http or https in lower case, without a path or the scheme's default port, such as http://localhost:3000".to_owned()
    })
}

/// Runs the command that the process was started with; returns its exit code.
pub fn main() -> i32 {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are answers, everything else is wrong usage: clap knows which.
            return match error.print() {
                Err(why) if !error.use_stderr() && why.kind() != io::ErrorKind::BrokenPipe => {
                    refuse(unwritten(&why))
                }
                _ => error.exit_code(),
            };
        }
    };
    match arguments.command {
        Command::Demo {
            public,
            admin,
            dashboard,
            cors_origins,
            replicas,
            log_format,
        } => demo::run(
            demo::DemoOptions {
                public,
                admin,
                dashboard,
                cors_origins,
                replicas,
            },
            log_format,
        ),
        Command::Serve { config, log_format } => serve::run(&config, log_format),
        Command::Sandbox {
            listen,
            seed,
            cases,
            requests_per_minute,
            scroll_idle,
        } => sandbox::run(
            listen,
            Options {
                seed,
                cases: cases as usize,
                scroll_idle: Duration::from_secs(scroll_idle.into()),
                ..sandbox::with_quota(requests_per_minute)
            },
        ),
        Command::Check(check) => check.run(&mut stdout(), &mut stderr()),
        Command::Operate(operate) => operate.run(&mut stdout(), &mut stderr()),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            let mut command = Arguments::command();
            clap_complete::generate(shell, &mut command, "msp-gateway", &mut text);
            print(&text)
        }
        Command::Man => {
            let mut text = Vec::new();
            match manual::page(Arguments::command(), &mut text) {
                Ok(()) => print(&text),
                Err(why) => refuse(why),
            }
        }
        Command::Caller {
            command:
                CallerCommand::New {
                    name,
                    customers,
                    role,
                },
        } => caller::run_new(
            &name,
            customers.as_deref(),
            role.as_deref(),
            &mut stdout(),
            &mut stderr(),
        ),
        Command::Store { command } => match command {
            StoreCommand::Check { config } => store::check(&config),
            StoreCommand::Wipe { config } => store::remove(&config),
        },
    }
}

/// Says in one line why a command is refused.
fn refuse(why: impl std::fmt::Display) -> i32 {
    // If this cannot be printed, the exit code still shows the failure.
    let _ = writeln!(stderr(), "msp-gateway: {why}");
    REFUSED
}

/// Prints an answer; a reader that left is no failure.
fn print(text: &[u8]) -> i32 {
    let mut out = stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Ok(()) => FINE,
        Err(why) if why.kind() == io::ErrorKind::BrokenPipe => FINE,
        Err(why) => refuse(unwritten(&why)),
    }
}

/// Why a command failed whose answer could not be written.
fn unwritten(why: &io::Error) -> String {
    format!("standard output cannot be written: {}", why.kind())
}
