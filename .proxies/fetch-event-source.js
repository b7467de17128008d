// nudged with @microsoft/fetch-event-source 2.0. Yours are the token and what events do.
import { fetchEventSource } from '@microsoft/fetch-event-source';

export function listen(url, token, onmessage) {
  return fetchEventSource(url, {
    headers: { authorization: `Bearer ${token}` },
    onmessage,
    // It takes the end of a response as the end of all, and comes back after an error only.
    onclose() {
      throw new Error('the stream ended');
    },
    // Without it a tab that is hidden closes its stream.
    openWhenHidden: true,
  });
}
