package ceiba

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

const hunted = "hunter2"

// printed is a value in every form in which it can get into a text or a log.
func printed(t *testing.T, value any) string {
	t.Helper()
	var text bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%t", "%20v"} {
		fmt.Fprintf(&text, verb+"\n", value)
		fmt.Fprintf(&text, verb+"\n", []any{value})
		fmt.Fprintf(&text, verb+"\n", map[string]any{"key": value})
	}
	fmt.Fprintln(&text, value)
	slog.New(slog.NewTextHandler(&text, nil)).Info("text", "value", value)
	slog.New(slog.NewJSONHandler(&text, nil)).Info("json", "value", value, slog.Group("group", "value", value))
	return text.String()
}

func hides(t *testing.T, value any) string {
	t.Helper()
	text := printed(t, value)
	for _, form := range []string{hunted, fmt.Sprintf("%x", hunted), fmt.Sprintf("%X", hunted)} {
		if strings.Contains(text, form) {
			t.Errorf("%T: %s", value, text)
		}
	}
	return text
}

func TestSecretsDoNotPrint(t *testing.T) {
	watchLeaks(t)
	section := KapokMQ{Topic: "t", SecretKey: SecretText(hunted)}
	config := Config{ID: "seen", Provider: section}
	broker := BrokerConfig{Listen: "127.0.0.1:0", SecretKey: hunted, Nodes: []string{"127.0.0.1:1"}}
	running := startBroker(t, broker)
	for _, value := range []any{section.SecretKey, &section.SecretKey, section, &section, config, &config, broker, &broker, running} {
		if text := hides(t, value); !strings.Contains(text, stars) {
			t.Errorf("%T: no stars in %s", value, text)
		}
	}
	// Where fmt calls no methods.
	hides(t, struct {
		section KapokMQ
		running *Broker
	}{section, running})
	hides(t, (*BrokerConfig)(nil))
	hides(t, (*Broker)(nil))

	// The rest is shown.
	if text := fmt.Sprintf("%+v", broker); text != "{Listen:127.0.0.1:0 SecretKey:*** Delivery: DPMQ:false Data: RedeliverAfter:0s Nodes:[127.0.0.1:1]}" {
		t.Error(text)
	}
	if text := fmt.Sprintf("%#v", broker); !strings.HasPrefix(text, `ceiba.BrokerConfig{Listen:"127.0.0.1:0", SecretKey:"***"`) {
		t.Error(text)
	}
	if text := fmt.Sprint(running); !strings.Contains(text, running.Address()) {
		t.Error(text)
	}
	if running.SecretKey() != hunted || !strings.Contains(running.URL("t"), hunted) {
		t.Error("the broker has another secret")
	}
	if broker.SecretKey != hunted {
		t.Error("printing changed the configuration")
	}
}

func TestASecretIsInTheConfigurationThatTheLibraryGets(t *testing.T) {
	text, err := json.Marshal(KapokMQ{Topic: "t", SecretKey: SecretText(hunted)})
	if err != nil || !strings.Contains(string(text), `"secret_key":"`+hunted+`"`) {
		t.Error(string(text), err)
	}
	text, err = json.Marshal(KapokMQ{Topic: "t"})
	if err != nil || !strings.Contains(string(text), `"secret_key":""`) {
		t.Error(string(text), err)
	}
	// A broker's own goes to the library by another way.
	text, err = json.Marshal(BrokerConfig{SecretKey: hunted, Data: "/d"})
	if err != nil || strings.Contains(string(text), hunted) || !strings.Contains(string(text), `"Data":"/d"`) {
		t.Error(string(text), err)
	}
	_, err = OpenProducer(background, struct {
		A Secret
		B func()
	}{A: SecretText(hunted)})
	if e := wantKind(t, err, ErrInvalidConfig); strings.Contains(e.Error(), hunted) {
		t.Error(e)
	}
}
