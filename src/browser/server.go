// Package nudged is what a backend needs of nudged: publishing, and tickets for its pages. It is one file, of the
// standard library of Go 1.22 or newer: copy it into a folder nudged of your module.
//
//	publisher, err := nudged.New(nudged.Options{URL: "http://10.0.0.5:6835", Token: os.Getenv("NUDGED_PUBLISH_KEY")})
//	err = publisher.Publish(ctx, "acme", "posts", "post:7") // now
//	publisher.Enqueue("acme", "posts", "post:7")            // with the next batch; never waits for the network
//	publisher.Close(ctx)                                    // at the end of main: sends what is queued
//
// Publish AFTER the COMMIT: a page that reads before it gets what is stale, and is not notified again.
//
//	if err := tx.Commit(); err != nil {
//		return err
//	}
//	publisher.Enqueue("acme", "posts")
//
// A process that dies between the COMMIT and the publish has lost it. What must survive that, or a server that is away
// while streams are open, is a row of an outbox, written by the transaction (`nudged --outbox`).
//
// Publish sends once more if there is no response within Timeout, and after a 5xx, or a 429 that says when to come back:
// keys are idempotent, twice costs a second read. Before that it waits 300 ms, or as long as `retry-after` says; if that
// is more than 5 s, it fails at once. Any other status is final.
//
// Enqueue collects keys for Window, each once, and sends them in the same way, up to 100 in a request. If the server
// refuses those of one org, it sends the others without them. What is given up is passed to Dropped, by default a warning
// of log/slog: what is refused, or fails twice; what finds as many keys waiting as Queue says; and what is left when the
// context of Close is done. A process that ends without Close loses what is queued.
package nudged

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	batchKeys     = 100 // of 512 bytes, they fit into 64 KiB (--key-bytes, --publish-bytes)
	retryWait     = 300 * time.Millisecond
	retryAfterMax = 5 * time.Second
)

var (
	serverURL = regexp.MustCompile(`^https?://[^/?#@\s]+(/[^?#\s]*)?$`)
	orgName   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
)

// Options of a [Publisher]. All but the URL have defaults.
type Options struct {
	URL       string                                     // the server, best by its internal address
	Token     string                                     // a publish key, or a token with the scope publish
	TokenFunc func(context.Context) (string, error)      // or one for each request
	Timeout   time.Duration                              // of one request; 2 s
	Window    time.Duration                              // keys are collected so long for one batch; 50 ms
	Queue     int                                        // the most keys that are queued, of all orgs together; 10,000
	Dropped   func(org string, keys []string, err error) // receives what was enqueued and will not be published
}

// Error says why keys were not published.
type Error struct {
	URL        string
	Status     int           // of the response; 0 without one
	Detail     string        // what the response says
	RetryAfter time.Duration // when the server asks to come back; 0 if it does not
	Temporary  bool          // the same may succeed later
	Err        error         // why there is no response
}

func (e *Error) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("no response of nudged at %s: %v", e.URL, e.Err)
	}
	return fmt.Sprintf("nudged at %s answered %d: %s", e.URL, e.Status, e.Detail)
}

func (e *Error) Unwrap() error { return e.Err }

// Publisher publishes to one server. Goroutines may share it.
type Publisher struct {
	options Options
	client  http.Client
	queue   chan entry
	mutex   sync.RWMutex // of closed
	closed  bool
	over    context.Context // done when Close has no more time
	end     context.CancelCauseFunc
	done    chan struct{} // closed when the queue has ended
}

type entry struct{ org, key string }

type line struct {
	Org  string   `json:"org"`
	Keys []string `json:"keys"`
}

// New makes a publisher. Close ends it.
func New(options Options) (*Publisher, error) {
	if !serverURL.MatchString(options.URL) {
		return nil, errors.New("the URL of nudged is like http://10.0.0.5:6835, without a user or a query")
	}
	options.URL = strings.TrimRight(options.URL, "/")
	options.Timeout = cmp.Or(options.Timeout, 2*time.Second)
	options.Window = cmp.Or(options.Window, 50*time.Millisecond)
	options.Queue = cmp.Or(options.Queue, 10_000)
	if options.Dropped == nil {
		options.Dropped = func(org string, keys []string, err error) {
			slog.Warn("nudged: not published", "org", org, "keys", fmt.Sprintf("%.200q", keys), "error", err)
		}
	}
	p := &Publisher{options: options, queue: make(chan entry, options.Queue), done: make(chan struct{})}
	p.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	p.over, p.end = context.WithCancelCause(context.Background())
	go p.run()
	return p, nil
}

// Publish publishes now.
func (p *Publisher) Publish(ctx context.Context, org string, keys ...string) error {
	if err := check(org, keys); err != nil {
		return err
	}
	return p.send(ctx, []*line{{org, keys}})
}

// Enqueue publishes with the next batch. What is wrong is passed to Dropped.
func (p *Publisher) Enqueue(org string, keys ...string) {
	if lost, err := p.put(org, keys); err != nil {
		p.options.Dropped(org, lost, err)
	}
}

// Close sends what is queued at once. What is left when the context is done is dropped. It ends the queue.
func (p *Publisher) Close(ctx context.Context) error {
	p.mutex.Lock()
	if !p.closed {
		p.closed = true
		close(p.queue)
	}
	p.mutex.Unlock()
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		p.end(errors.New("the publisher was closed"))
		<-p.done
		return ctx.Err()
	}
}

// put returns the keys that are not queued, and why.
func (p *Publisher) put(org string, keys []string) (lost []string, err error) {
	if err := check(org, keys); err != nil {
		return keys, err
	}
	p.mutex.RLock()
	defer p.mutex.RUnlock()
	if p.closed {
		return keys, errors.New("the publisher is closed")
	}
	for _, key := range keys {
		select {
		case p.queue <- entry{org, key}:
		default:
			lost, err = append(lost, key), fmt.Errorf("the queue is full: %d keys", p.options.Queue)
		}
	}
	return lost, err
}

func (p *Publisher) run() {
	defer close(p.done)
	for first := range p.queue {
		p.deliver(p.collect(first))
	}
}

// collect returns the lines of one request.
func (p *Publisher) collect(first entry) (lines []*line) {
	window, of := time.After(p.options.Window), map[string]*line{}
	for one, ok, count := first, true, 0; ok; {
		if of[one.org] == nil {
			of[one.org] = &line{Org: one.org}
			lines = append(lines, of[one.org])
		}
		if line := of[one.org]; !slices.Contains(line.Keys, one.key) {
			line.Keys = append(line.Keys, one.key)
			count++
		}
		if count == batchKeys {
			break
		}
		select {
		case one, ok = <-p.queue:
		case <-window:
			return lines
		}
	}
	return lines
}

func (p *Publisher) deliver(lines []*line) {
	for len(lines) > 0 {
		err := context.Cause(p.over)
		if err == nil {
			err = p.send(p.over, lines)
		}
		if err == nil {
			return
		}
		// Nothing of the request was published. If one line is the reason, the detail begins with its number.
		lost, rest := lines, []*line(nil)
		var failure *Error
		var number int
		if errors.As(err, &failure) {
			_, _ = fmt.Sscanf(failure.Detail, "line %d:", &number)
		}
		if 1 <= number && number <= len(lines) {
			lost, rest = lines[number-1:number], slices.Concat(lines[:number-1], lines[number:])
		}
		for _, line := range lost {
			p.options.Dropped(line.Org, line.Keys, err)
		}
		lines = rest
	}
}

// send makes one request, and a second one if that may help.
func (p *Publisher) send(ctx context.Context, lines []*line) error {
	var body bytes.Buffer
	encoder := json.NewEncoder(&body) // a line each
	encoder.SetEscapeHTML(false)
	for _, line := range lines {
		if err := encoder.Encode(line); err != nil {
			return err
		}
	}
	err := p.post(ctx, body.Bytes())
	var failure *Error
	if !errors.As(err, &failure) || !failure.Temporary || failure.RetryAfter > retryAfterMax {
		return err
	}
	select {
	case <-time.After(max(failure.RetryAfter, retryWait)):
		return p.post(ctx, body.Bytes())
	case <-ctx.Done():
		return err
	}
}

func (p *Publisher) post(ctx context.Context, body []byte) error {
	token := p.options.Token
	if p.options.TokenFunc != nil {
		var err error
		if token, err = p.options.TokenFunc(ctx); err != nil {
			return err
		}
	}
	limited, cancel := context.WithTimeout(ctx, p.options.Timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(limited, http.MethodPost, p.options.URL+"/api/events", bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/x-ndjson")
	if token = strings.TrimSpace(token); token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	var text []byte
	response, err := p.client.Do(request)
	if err == nil {
		defer response.Body.Close()
		text, err = io.ReadAll(io.LimitReader(response.Body, 64*1024))
	}
	if err != nil {
		return &Error{URL: p.options.URL, Err: err, Temporary: ctx.Err() == nil}
	}
	if response.StatusCode == http.StatusAccepted {
		return nil
	}
	var answer struct{ Detail string }
	_ = json.Unmarshal(text, &answer) // of a proxy it is a page
	seconds, _ := strconv.Atoi(response.Header.Get("Retry-After"))
	return &Error{
		URL: p.options.URL, Status: response.StatusCode, RetryAfter: time.Duration(max(seconds, 0)) * time.Second,
		Detail:    cmp.Or(answer.Detail, string(text[:min(len(text), 200)])),
		Temporary: response.StatusCode >= 500 || response.StatusCode == http.StatusTooManyRequests && seconds > 0,
	}
}

// TicketOptions of a [Ticket]: the zero value is right for a page.
type TicketOptions struct {
	TTL    time.Duration // how long it opens streams; a minute
	Stream time.Duration // how long these last; 12 hours
	Scope  string        // "subscribe"; "subscribe exclusive" for ?exclusive; "publish" for a backend
	Topics []string      // names of topics, or "run-*", or "*"; none
}

// Ticket signs a token with which a page opens the streams of an org. Sign one only for a user who has logged in and
// belongs to the org. With the scope "publish" it is the backend's own, and may be for "*".
func Ticket(secret, org string, options TicketOptions) (string, error) {
	if len(secret) < 32 || strings.ContainsFunc(secret, unicode.IsSpace) {
		return "", errors.New("a secret has at least 32 bytes and no white space; trim what was read from a file")
	}
	scope := cmp.Or(options.Scope, "subscribe")
	if !orgName.MatchString(org) && !(org == "*" && scope == "publish") {
		return "", fmt.Errorf("an organisation is 1 to 64 of A-Z a-z 0-9 . _ -, first a letter or digit, not %q", org)
	}
	if options.TTL < 0 || options.Stream < 0 {
		return "", errors.New("TTL and Stream are above 0")
	}
	now := time.Now()
	claims := map[string]any{
		"org": org, "scope": scope, "exp": now.Add(cmp.Or(options.TTL, time.Minute)).Unix(),
		"until": now.Add(cmp.Or(options.Stream, 12*time.Hour)).Unix(),
	}
	if options.Topics != nil {
		claims["topics"] = options.Topics
	}
	text, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	part := base64.RawURLEncoding.EncodeToString
	signed := part([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + part(text)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(signed))
	return signed + "." + part(mac.Sum(nil)), nil
}

func check(org string, keys []string) error {
	for _, text := range append([]string{org}, keys...) {
		if !utf8.ValidString(text) { // JSON would have other characters in its place
			return fmt.Errorf("an organisation and its keys are UTF-8, not %q", text)
		}
	}
	return nil
}
