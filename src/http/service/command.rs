//! Responds to a [`Command`].

use http::Request;
use hyper::body::Incoming;

use super::Service;
use super::admit::close_unproven;
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
        self.admitted.keep();
        let (hub, app, admitted) = (self.hub.clone(), self.app.clone(), self.admitted.clone());
        let (limits, timer) = (self.body_limits(), self.timer());
        let window = self.app.config.reread_window;
        let (head, body) = request.into_parts();
        ResponseState::Waiting(Box::pin(async move {
            let read = command::read(head.headers, body, limits, &timer).await;
            let publisher = Publisher { hub: &hub, rate_limiter: app.rate_limiter.as_ref() };
            let response = match read {
                Ok(()) => command.run(publisher, app.clock.now(), window).await,
                Err(reject) => Err(reject),
            };
            let mut response =
                response.unwrap_or_else(|reject| app.counted(reject).into_response());
            close_unproven(&admitted, &mut response);
            response
        }))
    }
}
