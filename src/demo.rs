//! Demo workloads: what examples and tests run inside containers, from orch's own binary, so that they need no registry.
//!
//! They are made to be the main process of a container FROM scratch: they need no file, answer SIGTERM as PID 1 (whose
//! default action the kernel leaves out), and never ask libc for a name (it would load modules that are not there).

mod client;
mod datagrams;
mod files;
mod grpc;
mod resolve;
mod sockets;
mod web;
mod websocket;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::Exit;

pub use client::ClientArgs;
pub use datagrams::DatagramsArgs;
pub use web::WebArgs;

/// `orch demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Which workload.
    #[command(subcommand)]
    workload: Workload,
}

/// A workload.
#[derive(Debug, Subcommand)]
pub enum Workload {
    /// Web server that says who it is
    Web(WebArgs),
    /// Ask a web server, as a health check does: 0 when it answers with success
    Probe {
        /// Address, `http://127.0.0.1/health`
        url: http::Uri,
        /// Seconds to wait at most
        #[arg(long, default_value_t = 3, value_name = "SECONDS")]
        timeout: u64,
        /// Print the answer
        #[arg(long)]
        print: bool,
    },
    /// Work for a while, then end
    Job {
        /// How long
        #[arg(long, default_value_t = 0.0, value_name = "SECONDS", value_parser = parse_seconds)]
        seconds: f64,
        /// Exit code
        #[arg(long, default_value_t = 0, value_name = "CODE")]
        exit: u8,
        /// A line to print first
        #[arg(long, value_name = "TEXT")]
        say: Option<String>,
        /// Print a numbered line each second
        #[arg(long)]
        ticks: bool,
    },
    /// Send back what comes, with the name of this container as first line
    TcpEcho {
        /// Where to listen
        #[arg(long, default_value = "0.0.0.0:7", value_name = "ADDRESS:PORT")]
        listen: SocketAddr,
        /// Say nothing first
        #[arg(long)]
        silent: bool,
    },
    /// Send back each datagram, after a line with the name of this container
    UdpEcho {
        /// Where to listen
        #[arg(long, default_value = "0.0.0.0:7", value_name = "ADDRESS:PORT")]
        listen: SocketAddr,
    },
    /// Serve gRPC: answer each message with the name of this container and its text
    Grpc {
        /// Where to listen
        #[arg(long, default_value = "0.0.0.0:50051", value_name = "ADDRESS:PORT")]
        listen: SocketAddr,
    },
    /// Call such a server; the exit code is the status of the call
    GrpcSay(grpc::SayArgs),
    /// Serve web sockets: answer each message with the name of this container and its text
    Ws {
        /// Where to listen
        #[arg(long, default_value = "0.0.0.0:80", value_name = "ADDRESS:PORT")]
        listen: SocketAddr,
    },
    /// Talk to such a server
    WsSay(websocket::SayArgs),
    /// Send datagrams to such a server, and count what comes back
    Datagrams(DatagramsArgs),
    /// Ask the first server of /etc/resolv.conf for a name, and print what it answers
    Resolve(resolve::ResolveArgs),
    /// Connect to a port, send a line if one is given, and print what comes back
    Connect(sockets::ConnectArgs),
    /// Load a web server and count what comes back
    Client(ClientArgs),
    /// Print files
    Cat {
        /// The files
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
    /// Write a line to a file
    Write {
        /// The file
        path: PathBuf,
        /// The line
        text: String,
    },
    /// List a directory: mode, owner, group, size, name
    List {
        /// The directory
        path: PathBuf,
    },
}

/// Why a workload failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    /// A call of the system failed.
    #[error("{action}: {source}")]
    Io {
        /// What was tried.
        action: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A name has no address.
    #[error("`{name}` does not resolve: {reason}")]
    Name {
        /// The name.
        name: String,
        /// The resolver's words.
        reason: String,
    },
    /// An address makes no sense.
    #[error("`{0}` is not an address that can be asked: expected http://HOST[:PORT]/PATH")]
    Address(String),
    /// The other side answered wrong, or not in time.
    #[error("{0}")]
    Answer(String),
}

impl DemoError {
    /// Wraps a failed call with what was tried.
    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }
}

/// Runs a workload to its end.
pub fn main(args: DemoArgs) -> Exit {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&DemoError::io("start the runtime")(error)),
    };
    let result = runtime.block_on(run(args.workload));
    runtime.shutdown_background();
    result.unwrap_or_else(|error| fail(&error))
}

async fn run(workload: Workload) -> Result<Exit, DemoError> {
    match workload {
        Workload::Web(args) => web::run(&args).await,
        Workload::Probe { url, timeout, print } => client::probe(&url, Duration::from_secs(timeout), print).await,
        Workload::Job { seconds, exit, say, ticks } => {
            if let Some(text) = say {
                say_line(&text);
            }
            job(Duration::from_secs_f64(seconds), exit, ticks).await
        }
        Workload::TcpEcho { listen, silent } => sockets::echo(listen, silent).await,
        Workload::UdpEcho { listen } => datagrams::echo(listen).await,
        Workload::Datagrams(args) => datagrams::run(&args).await,
        Workload::Grpc { listen } => grpc::serve(listen).await,
        Workload::GrpcSay(args) => grpc::say(&args).await,
        Workload::Ws { listen } => websocket::serve(listen).await,
        Workload::WsSay(args) => websocket::say(&args).await,
        Workload::Resolve(args) => resolve::run(&args).await,
        Workload::Connect(args) => sockets::connect(&args).await,
        Workload::Client(args) => client::run(&args).await,
        Workload::Cat { paths } => files::cat(&paths),
        Workload::Write { path, text } => files::write(&path, &text),
        Workload::List { path } => files::list(&path),
    }
}

/// Waits, or until it is told to end: then the code is that of the signal, as a shell shows it.
async fn job(time: Duration, exit: u8, ticks: bool) -> Result<Exit, DemoError> {
    let ticking = async {
        let mut interval = tokio::time::interval(Duration::from_secs(1));
        for tick in 1_u64.. {
            interval.tick().await;
            if ticks {
                say_line(&format!("tick {tick}"));
            }
        }
    };
    tokio::select! {
        () = tokio::time::sleep(time) => Ok(Exit::of_container(exit.into())),
        () = ticking => Ok(Exit::Success),
        end = asked_to_end() => end.map(|number| Exit::Code(128 + number)),
    }
}

/// Waits for SIGTERM or SIGINT. Returns its number.
async fn asked_to_end() -> Result<u8, DemoError> {
    let listen = |kind| signal(kind).map_err(DemoError::io("listen for signals"));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => Ok(15),
        _ = interrupt.recv() => Ok(2),
    }
}

/// Prints a line for the reader of the container's log.
pub(crate) fn say_line(text: &str) {
    // A log that nobody reads any more is no reason to stop serving.
    writeln!(std::io::stdout().lock(), "{text}").ok();
}

fn fail(error: &DemoError) -> Exit {
    writeln!(std::io::stderr().lock(), "error: {error}").ok();
    Exit::Failure
}

/// The name of this container (or machine).
pub(crate) fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=1e9).contains(&seconds) => Ok(seconds),
        _ => Err("expected a number of seconds".to_owned()),
    }
}
