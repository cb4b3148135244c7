package ceiba

import (
	"context"
	"encoding/json"
	"sync"
)

// Version returns the library's version.
func Version() string { return cVersion() }

// checkLibrary refuses a library with another ABI than the header this package was built with.
var checkLibrary = sync.OnceValue(func() *Error {
	if found := cABIVersion(); found != abiVersion {
		return errorf(ErrInternal, "the loaded library has ABI version %d, and this package needs %d", found, abiVersion)
	}
	return nil
})

// SetWorkers sets how many threads of the library run the clients: 1 to 1024, before the first client
// or broker opens. Without it there is one per processor.
func SetWorkers(count int) error {
	if count < 1 || count > 1024 {
		return errorf(ErrInvalidArgument, "the workers must be 1 to 1024, not %d", count)
	}
	return orNil(cSetWorkers(uint32(count)))
}

// Shutdown closes every producer and consumer of the process until the context's deadline (without one,
// 30 seconds), which is one for all of them. [ErrTimeout] says that some sends had to be ended or a
// callback is still running. When the context ends first it returns at once, and closing goes on behind;
// one that had ended before still closes all, without waiting for sends. Clients can be opened
// afterwards.
func Shutdown(ctx context.Context) error {
	ctx = orBackground(ctx)
	by := closeBy(ctx, shutdownTime)
	return orNil(shutting.finish(ctx, func() *Error {
		var ofProducers []*Producer
		for _, p := range producers.all() {
			if !p.closed.Swap(true) {
				ofProducers = append(ofProducers, p)
			}
		}
		var ofConsumers []*Consumer
		for _, c := range consumers.all() {
			if !c.closed.Swap(true) {
				ofConsumers = append(ofConsumers, c)
			}
		}
		text, err := cShutdown(by.timeout())
		last := by.last()
		for _, c := range ofConsumers {
			c.bury(nil, last)
		}
		for _, p := range ofProducers {
			if late := p.bury(nil, last); err == nil {
				err = late
			}
		}
		if err != nil {
			return err
		}
		var report struct{ Clean, Forced, Failed int }
		if json.Unmarshal([]byte(text), &report) == nil && report.Forced+report.Failed > 0 {
			return errorf(ErrTimeout, "%d clients closed in time; %d had sends that were ended, %d failed to close",
				report.Clean, report.Forced, report.Failed)
		}
		return nil
	}))
}

// Metrics is what all open producers and consumers count, as Prometheus text: each number of their statuses with the
// client's id, and those of strategies and members with their names. A handler for scrapes writes it as
// "text/plain; version=0.0.4". It is empty where nothing is open.
func Metrics() string { return cMetrics() }
