//! Bare TCP: an echo server and one connection.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::resolve::addresses;
use super::{DemoError, Exit, asked_to_end, hostname, say_line};

/// `orch demo connect`.
#[derive(Debug, Args)]
pub struct ConnectArgs {
    /// HOST:PORT
    target: String,
    /// Line to send
    #[arg(long, value_name = "TEXT")]
    send: Option<String>,
    /// Seconds for everything
    #[arg(long, default_value_t = 3, value_name = "SECONDS")]
    timeout: u64,
}

/// Sends back what comes, until it is told to end.
pub(super) async fn echo(listen: SocketAddr, silent: bool) -> Result<Exit, DemoError> {
    serve(listen, move |stream| echo_one(stream, silent)).await
}

/// Serves each connection by a task of its own, until it is told to end.
pub(super) async fn serve<F>(listen: SocketAddr, one: impl Fn(TcpStream) -> F) -> Result<Exit, DemoError>
where
    F: Future<Output: Send> + Send + 'static,
{
    let listener = TcpListener::bind(listen).await.map_err(DemoError::io(format!("listen on {listen}")))?;
    let local = listener.local_addr().map_err(DemoError::io("ask for the port"))?;
    say_line(&format!("listening on {local}"));
    let accepting = async {
        loop {
            // An accept that fails (no descriptors) is the client's loss, not ours.
            let Ok((stream, _)) = listener.accept().await else { continue };
            tokio::spawn(one(stream));
        }
    };
    tokio::select! {
        () = accepting => {}
        end = asked_to_end() => { end?; }
    }
    Ok(Exit::Success)
}

async fn echo_one(mut stream: TcpStream, silent: bool) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut read, mut write) = stream.split();
    if !silent {
        write.write_all(format!("{}\n", hostname()).as_bytes()).await?;
    }
    tokio::io::copy(&mut read, &mut write).await?;
    write.shutdown().await
}

/// Connects, sends, and prints what comes back until the other side ends or the time is over.
pub(super) async fn connect(args: &ConnectArgs) -> Result<Exit, DemoError> {
    let wrong = || DemoError::Answer(format!("`{}` is not HOST:PORT", args.target));
    let (host, port) = args.target.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().map_err(|_| wrong())?;
    let limit = Duration::from_secs(args.timeout);
    let talk = async {
        let mut stream = connect_any(host, port).await?;
        let io = || DemoError::io(format!("talk to {}", args.target));
        if let Some(text) = &args.send {
            stream.write_all(format!("{text}\n").as_bytes()).await.map_err(io())?;
        }
        stream.shutdown().await.map_err(io())?;
        let mut answer = Vec::new();
        stream.take(1 << 20).read_to_end(&mut answer).await.map_err(io())?;
        Ok(answer)
    };
    let answer = timeout(limit, talk).await.unwrap_or_else(|_| {
        Err(DemoError::Answer(format!("{} did not answer within {} s", args.target, args.timeout)))
    })?;
    say_line(String::from_utf8_lossy(&answer).trim_end());
    Ok(Exit::Success)
}

/// Connects to the first address of `host` that takes the connection.
pub(super) async fn connect_any(host: &str, port: u16) -> Result<TcpStream, DemoError> {
    let mut last = None;
    for address in addresses(host).await? {
        match TcpStream::connect((address, port)).await {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(DemoError::io("set up the connection"))?;
                return Ok(stream);
            }
            Err(error) => last = Some(DemoError::io(format!("connect to {address} port {port}"))(error)),
        }
    }
    Err(last.unwrap_or_else(|| DemoError::Address(host.to_owned())))
}
