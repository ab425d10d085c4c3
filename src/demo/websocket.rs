//! A WebSocket server that says who it is, and its client.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{accept_async, client_async};

use super::resolve::addresses;
use super::{DemoError, Exit, hostname, say_line, sockets};

/// `orch demo ws-say`.
#[derive(Debug, Args)]
pub struct SayArgs {
    /// HOST:PORT
    target: String,
    /// Messages, sent one after the other, each when the answer to the one before is there
    #[arg(required = true)]
    texts: Vec<String>,
    /// Path to ask for
    #[arg(long, default_value = "/", value_name = "PATH")]
    path: String,
    /// Name in `Host`
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// Seconds between two messages
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    pause: u64,
    /// Seconds for each answer
    #[arg(long, default_value_t = 5, value_name = "SECONDS")]
    timeout: u64,
}

/// Serves until it is told to end.
pub(super) async fn serve(listen: SocketAddr) -> Result<Exit, DemoError> {
    sockets::serve(listen, answer).await
}

async fn answer(stream: TcpStream) -> Result<(), Error> {
    let mut socket = accept_async(stream).await?;
    while let Some(message) = socket.next().await {
        match message? {
            Message::Text(text) => socket.send(Message::text(format!("{} {text}", hostname()))).await?,
            binary @ Message::Binary(_) => socket.send(binary).await?,
            _ => {}
        }
    }
    Ok(())
}

/// Sends the messages and prints what comes back.
pub(super) async fn say(args: &SayArgs) -> Result<Exit, DemoError> {
    let wrong = || DemoError::Answer(format!("`{}` is not HOST:PORT", args.target));
    let failed = |error: Error| DemoError::Answer(error.to_string());
    let (name, port) = args.target.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().map_err(|_| wrong())?;
    let address = addresses(name).await?.first().copied().ok_or_else(wrong)?;
    let stream = TcpStream::connect((address, port)).await.map_err(DemoError::io(format!("connect to {address}")))?;
    let host = args.host.as_deref().unwrap_or(&args.target);
    let request = format!("ws://{host}{}", args.path).into_client_request().map_err(failed)?;
    let limit = Duration::from_secs(args.timeout);
    let late = |_| DemoError::Answer(format!("no answer within {limit:?}"));
    let (mut socket, _) = timeout(limit, client_async(request, stream)).await.map_err(late)?.map_err(failed)?;
    for (at, text) in args.texts.iter().enumerate() {
        if at > 0 {
            tokio::time::sleep(Duration::from_secs(args.pause)).await;
        }
        socket.send(Message::text(text.as_str())).await.map_err(failed)?;
        let answer = timeout(limit, socket.next()).await.map_err(late)?;
        let answer = answer.ok_or_else(|| DemoError::Answer("the server ended".to_owned()))?.map_err(failed)?;
        say_line(answer.to_text().map_err(failed)?);
    }
    socket.close(None).await.map_err(failed)?;
    Ok(Exit::Success)
}
