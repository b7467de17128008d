// Does what each line of its input says with server.go, and prints what came of it.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"example/nudged"
)

type call struct {
	Action, Org, Secret string
	Keys                []string
	Ms                  int
	Options             struct {
		URL, Token, Scope      string
		Timeout, Window, Queue int
		Seconds, StreamSeconds int
		Topics                 []string
	}
}

type note struct {
	Org   string   `json:"org"`
	Keys  []string `json:"keys"`
	Error string   `json:"error"`
}

var (
	publisher *nudged.Publisher
	mutex     sync.Mutex
	dropped   = []note{}
)

func main() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var call call
		if err := json.Unmarshal(lines.Bytes(), &call); err != nil {
			panic(err)
		}
		for at, key := range call.Keys { // which has no text for what is none
			call.Keys[at] = strings.ReplaceAll(key, "\ufffd", "\xff")
		}
		result, err := run(call)
		if err != nil {
			result = map[string]any{"error": err.Error()}
			var failure *nudged.Error
			if errors.As(err, &failure) {
				result["isRefusal"], result["status"], result["detail"] = true, failure.Status, failure.Detail
				result["retryAfter"], result["temporary"] = failure.RetryAfter.Milliseconds(), failure.Temporary
			}
		}
		text, _ := json.Marshal(result)
		fmt.Println(string(text))
	}
	if publisher != nil {
		publisher.Close(context.Background())
	}
}

func run(call call) (result map[string]any, err error) {
	ctx, result := context.Background(), map[string]any{}
	milliseconds := func(n int) time.Duration { return time.Duration(n) * time.Millisecond }
	switch o := call.Options; call.Action {
	case "new":
		publisher, err = nudged.New(nudged.Options{
			URL: o.URL, Token: o.Token, Timeout: milliseconds(o.Timeout), Window: milliseconds(o.Window),
			Queue: o.Queue,
			Dropped: func(org string, keys []string, err error) {
				mutex.Lock()
				defer mutex.Unlock()
				dropped = append(dropped, note{org, keys, err.Error()})
			},
		})
	case "publish":
		err = publisher.Publish(ctx, call.Org, call.Keys...)
	case "enqueue":
		publisher.Enqueue(call.Org, call.Keys...)
	case "close":
		limited, cancel := context.WithTimeout(ctx, milliseconds(call.Ms))
		defer cancel()
		_ = publisher.Close(limited)
	case "dropped":
		mutex.Lock()
		defer mutex.Unlock()
		result["dropped"], dropped = dropped, []note{}
	case "ticket":
		second := func(n int) time.Duration { return time.Duration(n) * time.Second }
		options := nudged.TicketOptions{
			TTL: second(o.Seconds), Stream: second(o.StreamSeconds), Scope: o.Scope, Topics: o.Topics,
		}
		result["token"], err = nudged.Ticket(call.Secret, call.Org, options)
	}
	return result, err
}
