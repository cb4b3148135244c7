package wire

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
)

// The benchmark program counts every message in each of its modes, by number and by time.
func TestPlainbench(t *testing.T) {
	program := filepath.Join(t.TempDir(), "plainbench")
	if out, err := exec.Command("go", "build", "-o", program, "./cmd/plainbench").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	run := func(t *testing.T, args ...string) (messages, duplicates int64, rate float64) {
		t.Helper()
		args = append(args, "--addr", server(t, ""), "--secret", secret(), "--topic", newTopic())
		out, err := exec.Command(program, args...).Output()
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		var r struct {
			Messages     int64   `json:"messages"`
			Duplicates   int64   `json:"duplicates"`
			Seconds      float64 `json:"seconds"`
			WriteSeconds float64 `json:"write_seconds"`
			CPUSeconds   float64 `json:"cpu_seconds"`
			Rate         float64 `json:"rate"`
		}
		if err := json.Unmarshal(out, &r); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if r.Seconds <= 0 || r.WriteSeconds <= 0 || r.WriteSeconds > r.Seconds || r.CPUSeconds <= 0 {
			t.Errorf("times that cannot be: %s", out)
		}
		return r.Messages, r.Duplicates, r.Rate
	}
	for _, mode := range []string{"acked", "unacked", "e2e"} {
		for _, clients := range []int{1, 3} {
			t.Run(mode+" "+strconv.Itoa(clients), func(t *testing.T) {
				messages, duplicates, rate := run(t, "--mode", mode, "--clients", strconv.Itoa(clients), "--count", "1000", "--size", "100")
				if messages != 1000 || duplicates != 0 || rate <= 0 {
					t.Errorf("%d messages, %d duplicates, rate %f", messages, duplicates, rate)
				}
			})
		}
		t.Run(mode+" for a time", func(t *testing.T) {
			if messages, _, _ := run(t, "--mode", mode, "--seconds", "0.3"); messages == 0 {
				t.Error("no messages")
			}
		})
	}
	if err := exec.Command(program, "--mode", "none", "--count", "1").Run(); err == nil {
		t.Error("an unknown mode was taken")
	}
}
