//! Clients of a balancer, and what has its address: headers that do not come, come slowly, end, or are none.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::places::held;
use super::{Arena, add, crowd};
use crate::shared::http::get;
use crate::stage::BALANCER;

/// How a header begins, up to the number of the bytes that follow.
const START: &[u8; 14] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11";

/// Clients of the balancer: each has far more connections than it may.
const CLIENTS: u8 = 4;

const PAUSE: Duration = Duration::from_millis(20);

/// Between two bytes of a slow header.
const SLOW: Duration = Duration::from_millis(500);

pub(super) async fn headers(arena: Arc<Arena>) {
    let count = arena.sizes.scaled(600);
    crowd(&arena, count, PAUSE, |arena, number| async move {
        let to = if number.is_multiple_of(2) { arena.plain } else { arena.tls };
        let mut socket = arena.connect_as(BALANCER, to).await?;
        add(&arena.tally.acts, 1);
        let whole = header(Ipv4Addr::new(192, 0, 2, number as u8 % CLIENTS));
        match number / 2 % 6 {
            0 => {}
            1 => {
                for byte in &whole[..whole.len() - 1] {
                    socket.write_all(&[*byte]).await?;
                    tokio::time::sleep(SLOW).await;
                }
            }
            2 => {
                socket.write_all(&whole[..whole.len() / 2]).await?;
                tokio::time::sleep(SLOW).await;
                socket.set_zero_linger()?;
                return Ok(());
            }
            3 => socket.write_all(&[&START[..], &[0xFF; 100]].concat()).await?,
            4 => socket.write_all(&[&whole[..], &whole].concat()).await?,
            // Half a request, or what begins like a record of TLS.
            _ => {
                let head = get("/livez", "");
                let rest = [&head.as_bytes()[..20], &[0x16, 3, 1, 0xFF, 0xFF, 1]];
                socket.write_all(&[&whole[..], rest[number % 2]].concat()).await?;
            }
        }
        held(&arena, &mut socket).await
    })
    .await;
}

/// What a balancer sends first for this client.
fn header(client: Ipv4Addr) -> Vec<u8> {
    [&START[..], &[0, 12], &client.octets(), &[198, 51, 100, 1, 0x12, 0x67, 1, 0xBB]].concat()
}
