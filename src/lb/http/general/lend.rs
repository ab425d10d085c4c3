//! Lends pingora a client's connection, for one request or for good, and takes it back.

use std::cell::RefCell;
use std::sync::Arc;

use pingora_core::apps::{HttpServerApp as _, HttpServerOptions, ServerApp as _};
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::default_h2_options;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::server::configuration::ServerConf;
use pingora_proxy::HttpProxy;

use super::General;
use crate::lb::http::buffer::Buffer;
use crate::lb::http::connection::Connection;
use crate::lb::http::head::MAX_HEAD;
use crate::lb::http::held::Held;
use crate::lb::http::link::digest;
use crate::lb::http::stream::{ClientIo, Fence, Lent, Loan, Patience};
use crate::lb::http::visit::Visit;
use crate::lb::http::watch::Watch;
use crate::lb::http::{Http, Limits};

/// Connections to pods that a thread keeps.
const KEPT: usize = 512;

/// Attempts for one request, whatever they come to: the search for a pod ends by its time.
const MAX_ATTEMPTS: usize = 10_000;

type Proxy = HttpProxy<General>;

thread_local!(static PROXY: RefCell<Option<Arc<Proxy>>> = const { RefCell::new(None) });

/// Serves one request of a connection; returns the connection if another may follow.
pub(in crate::lb::http) async fn serve_request(connection: Connection, fence: Fence) -> Option<Connection> {
    let Connection { http, visit, io, unread, watch, held } = connection;
    let proxy = proxy(&http);
    let may_follow = matches!(fence, Fence::Request { .. }) && !http.is_stopping();
    let loan = loan(&http, &visit, io, (unread, held), watch, fence, false)?;
    let mut session = ServerSession::new_http1(Box::new(Lent::new(loan)));
    // Its own limits would keep a timer thread busy; ours are in what is lent.
    session.set_read_timeout(None);
    session.set_keepalive(may_follow.then_some(0));
    // Who has said all that he will is owed his answer.
    session.set_abort_on_close(false);
    let stopping = http.stopping.subscribe();
    let (stream, _) = proxy.process_new_http(session, &stopping).await?.consume();
    let lent: Lent = *stream.into_any().downcast().ok()?;
    let (io, unread) = lent.give_back()?;
    let watch = Watch::new(&http.stop);
    Some(Connection { http, visit, io, unread, watch, held: Held::default() })
}

/// Serves a connection of HTTP/2 to its end.
pub(in crate::lb::http) async fn serve_http2(connection: Connection) {
    let Connection { http, visit, io, unread, watch, held } = connection;
    let proxy = proxy(&http);
    let Some(loan) = loan(&http, &visit, io, (unread, held), watch, Fence::None, true) else { return };
    let stopping = http.stopping.subscribe();
    proxy.process_new(Box::new(Lent::new(loan)), &stopping).await;
}

fn loan(
    http: &Arc<Http>,
    visit: &Arc<Visit>,
    io: ClientIo,
    (unread, held): (Buffer, Held),
    watch: Watch,
    fence: Fence,
    is_http2: bool,
) -> Option<Loan> {
    let Limits { body, write, idle, .. } = http.limits;
    let is_busy: fn(&ProxyDigest) -> bool = |visit| visit_of(visit).is_some_and(|visit| visit.is_busy());
    let is_cut: fn(&ProxyDigest) -> bool = |visit| visit_of(visit).is_some_and(|visit| visit.is_cut());
    let patience =
        Patience { read: if is_http2 { idle } else { body }, write, idle: is_http2.then_some(is_busy), is_cut };
    let digest = digest(Box::new(Arc::clone(visit))).ok()?;
    let (peer, watches) = (visit.peer, [watch, Watch::new(&http.stop)]);
    let room = http.room;
    Some(Loan { io, unread, held, fence, peer, watches, patience, room, is_http2, visit: Arc::new(digest) })
}

/// Returns the proxy of this thread.
fn proxy(http: &Arc<Http>) -> Arc<Proxy> {
    PROXY.with_borrow_mut(|proxy| {
        let made = proxy.get_or_insert_with(|| {
            let conf = ServerConf {
                threads: 1,
                upstream_keepalive_pool_size: KEPT,
                max_retries: MAX_ATTEMPTS,
                ..ServerConf::default()
            };
            let mut made = HttpProxy::new(General { http: Arc::clone(http) }, Arc::new(conf));
            made.handle_init_modules();
            let mut options = default_h2_options();
            options.max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX));
            made.h2_options = Some(options);
            made.server_options = Some(HttpServerOptions::default());
            Arc::new(made)
        });
        Arc::clone(made)
    })
}

/// Returns the visit that a loan is for.
pub(super) fn visit_of(digest: &ProxyDigest) -> Option<&Arc<Visit>> {
    digest.user_data.as_ref()?.downcast_ref()
}
