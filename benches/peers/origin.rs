//! The backend behind Pushpin: its response to a subscriber instructs Pushpin to hold the stream and to
//! subscribe it to the channel of its path (GRIP).

use std::io;

use axum::Router;
use axum::http::{HeaderName, Uri};
use axum::routing::get;

pub(crate) fn serve() -> io::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let app = Router::new().fallback(get(hold));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("listening on http://{}", listener.local_addr()?);
        axum::serve(listener, app).await
    })
}

async fn hold(uri: Uri) -> ([(HeaderName, String); 4], &'static str) {
    let header = |name, value: &str| (HeaderName::from_static(name), value.to_owned());
    let channel = uri.path().split('/').nth(2).unwrap_or("acme");
    let headers = [
        header("content-type", "text/event-stream"),
        header("grip-hold", "stream"),
        header("grip-channel", channel),
        header("grip-keep-alive", ": keepalive\\n\\n; format=cstring; timeout=30"),
    ];
    (headers, "event: connected\ndata: {}\n\n")
}
