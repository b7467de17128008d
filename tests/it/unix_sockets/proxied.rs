//! Behind nginx, which connects to a Unix socket: `.proxies/nginx.conf` with another `proxy_pass`.

use std::fs;

use super::Place;
use crate::support::port::ReservedPort;
use crate::support::programs::{NGINX, requires};
use crate::support::proxy::Proxy;
use crate::support::recipe::Recipe;
use crate::support::{Client, eventually};

#[test]
fn nginx_reaches_it_by_its_path_and_names_the_clients() {
    requires!(NGINX);
    let place = Place::new();
    let recipe = Recipe::Nginx.text();
    let there = "proxy_pass http://127.0.0.1:6834;";
    let here = format!("proxy_pass http://{}:;", place.flag());
    assert!(recipe.contains(there));
    // The worker of nginx may be another user.
    let anyone = ["--listen-mode", "666"];
    fs::set_permissions(place.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("a folder");
    let trust = ["--trust-forwarded-for", "unix", "--address-streams", "3", "--coalesce", "0"];
    let server = place.serve(&[&anyone[..], &trust].concat());
    let unused = ReservedPort::new();
    let nginx = Proxy::recipe_as(Recipe::Nginx, &recipe.replace(there, &here), unused.address);
    let mut streams: Vec<_> = (0..3).map(|_| nginx.stream()).collect();
    streams.iter_mut().for_each(|stream| _ = stream.connected());
    for key in ["a", "b"] {
        let id = server.publish("acme", &[key]).expect("subscribed");
        streams.iter_mut().for_each(|stream| stream.expect_invalidate(&id, &[key]));
    }
    // All of them have the address from which they reach nginx.
    let mut fourth = Client::connect(nginx.address);
    fourth.send("GET /api/acme/events HTTP/1.1\r\nhost: test\r\n\r\n");
    assert_eq!(fourth.read_answer().status(), 503);
    assert_eq!(server.metric("nudged_refused_total{limit=\"address_streams\"}"), 1);
    for (n, stream) in streams.into_iter().enumerate() {
        if n == 0 { stream.client.reset() } else { drop(stream) }
    }
    eventually("every seat is free", || server.seats() == 0);
    nginx.kill();
}
