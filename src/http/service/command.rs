//! Responds to a [`Command`].

use http::Request;
use hyper::body::Incoming;

use super::Service;
use crate::http::auth::Grant;
use crate::http::command::{self, Command};
use crate::http::publish::Publisher;
use crate::http::response::ResponseState;

impl Service {
    pub(super) fn command(
        &self,
        command: Command,
        grant: &Grant,
        request: Request<Incoming>,
    ) -> ResponseState {
        if let Err(reject) = command.check(&grant.orgs) {
            return self.conclude(Err(reject), false);
        }
        let (hub, app) = (self.hub.clone(), self.app.clone());
        let (limits, timer) = (self.body_limits(), self.timer());
        let window = self.app.config.reread_window;
        let (head, body) = request.into_parts();
        self.wait_for(async move {
            command::read(head.headers, body, limits, &timer).await?;
            let publisher = Publisher { hub: &hub, rate_limiter: app.rate_limiter.as_ref() };
            command.run(publisher, app.clock.now(), window).await
        })
    }
}
