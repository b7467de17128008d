//! Responds to a [`Command`].

use http::Request;
use hyper::body::Incoming;

use super::Service;
use super::access::close_unproven;
use crate::config::Config;
use crate::http::auth::Grant;
use crate::http::command::{self, Command};
use crate::http::publish::{BodyLimits, Publisher};
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
        self.admitted.keep();
        let (hub, app, admitted) = (self.hub.clone(), self.app.clone(), self.admitted.clone());
        let Config { publish_bytes_max, body_timeout, reread_window, .. } = self.app.config;
        let budget = self.body_budget.clone();
        let limits = BodyLimits { bytes_max: publish_bytes_max, timeout: body_timeout, budget };
        let timer = self.timer();
        let (head, body) = request.into_parts();
        ResponseState::Waiting(Box::pin(async move {
            let read = command::read(head.headers, body, limits, &timer).await;
            let publisher = Publisher { hub: &hub, rate_limiter: app.rate_limiter.as_ref() };
            let response = match read {
                Ok(()) => command.run(publisher, app.clock.now(), reread_window).await,
                Err(reject) => Err(reject),
            };
            let mut response =
                response.unwrap_or_else(|reject| app.counted(reject).into_response());
            close_unproven(&admitted, &mut response);
            response
        }))
    }
}
