package main

import (
	"context"
	"slices"
	"time"

	"ceiba"
	"ceiba/comm"
	"ceiba/comm/failover"
	"ceiba/comm/ratelimit"
	"ceiba/comm/retryable"
)

// stackBurst is how many calls are timed together.
const stackBurst = 200

// timing is what a call takes, in nanoseconds.
type timing struct {
	Min    float64 `json:"ns_min"`
	Median float64 `json:"ns_median"`
	P90    float64 `json:"ns_p90"`
}

// grants is a limiter that lets everything pass.
type grants struct{}

func (grants) Limit(context.Context, string) (bool, error) { return false, nil }

// strategy measures what strategies add to a sender of this program: those of package comm, which are plain Go, and the
// library's around a registered sender. Bursts of all take turns, in one goroutine.
func strategy(s settings) (line, error) {
	ctx := context.Background()
	bare := comm.SenderFunc[[]byte](func(context.Context, string, []byte, ...string) error { return nil })
	if err := ceiba.RegisterSender("bench", bare); err != nil {
		return line{}, err
	}
	registered := func(id string, strategies ...map[string]any) (comm.Sender[[]byte], error) {
		p, err := ceiba.OpenProducer(ctx, map[string]any{
			"provider": map[string]any{"type": "callback", "name": "bench"}, "strategies": append([]map[string]any{}, strategies...),
		}, ceiba.WithID(id))
		return comm.SenderFunc[[]byte](func(ctx context.Context, _ string, body []byte, _ ...string) error {
			_, err := p.Send(ctx, body)
			return err
		}), err
	}
	plain, err := registered("plain")
	if err != nil {
		return line{}, err
	}
	layered, err := registered("layered", map[string]any{"type": "failover", "members": []any{
		map[string]any{"provider": map[string]any{"type": "memory", "topic": "bench"}},
	}}, map[string]any{"type": "retry", "max_attempts": 3}, map[string]any{"type": "timeout", "after": "10s"})
	if err != nil {
		return line{}, err
	}
	group := failover.NewService([]comm.Sender[[]byte]{bare, bare})
	stacks := []struct {
		name string
		svc  comm.Sender[[]byte]
	}{
		{"bare", bare},
		{"retry", retryable.NewService[[]byte](bare, 3)},
		{"rate_limit", ratelimit.NewService[[]byte](bare, "bench", grants{})},
		{"failover", group},
		{"three", retryable.NewService[[]byte](ratelimit.NewService[[]byte](group, "bench", grants{}), 3)},
		{"registered", plain},
		{"registered_three", layered},
	}
	body := make([]byte, s.size)
	samples := make([][]float64, len(stacks))
	var sent int64
	watch := startWatch()
	for until := time.Now().Add(s.seconds); sent == 0 || time.Now().Before(until); {
		for i, stack := range stacks {
			start := time.Now()
			for range stackBurst {
				if err := stack.svc.Send(ctx, "", body, "a"); err != nil {
					return line{}, err
				}
			}
			samples[i] = append(samples[i], float64(time.Since(start).Nanoseconds())/stackBurst)
			sent += stackBurst
		}
	}
	l := watch.line(s, sent, time.Now())
	l.Clients, l.Calls = 0, map[string]timing{}
	for i, stack := range stacks {
		slices.Sort(samples[i])
		at := func(part int) float64 { return samples[i][len(samples[i])*part/100] }
		l.Calls[stack.name] = timing{at(0), at(50), at(90)}
	}
	return l, nil
}
