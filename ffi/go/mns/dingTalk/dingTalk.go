// Package dingTalk tells people, through an HTTP gateway in front of DingTalk, of messages that were given up. Its
// functions are for topic.Retry and topic.NewMNSTopic, and have the names of github.com/coffee1998/go-mns.
//
// Different from there: what failed stands in the text, a missing setting or an answer that is no success is an error,
// and nothing ends the process.
package dingTalk

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"ceiba"
	"ceiba/mns/config"
)

// SendMessageToUser tells the users of the list: a form with `useridList` and `message`.
func SendMessageToUser(c config.DingTalkConfig) config.DigestFunc {
	return func(given ...config.Digest) error {
		var users []string
		for user := range strings.SplitSeq(c.UserList, ",") {
			if user = strings.TrimSpace(user); user != "" {
				users = append(users, user)
			}
		}
		return tell(c, "users", "UserList", users, given)
	}
}

// SendMessageToGroup tells a group: a form with `_id` and `message`.
func SendMessageToGroup(c config.DingTalkConfig) config.DigestFunc {
	return func(given ...config.Digest) error {
		var groups []string
		if c.GroupId != "" {
			groups = append(groups, c.GroupId)
		}
		return tell(c, "groups", "GroupId", groups, given)
	}
}

func wrong(format string, args ...any) error {
	return &ceiba.Error{Kind: ceiba.ErrInvalidConfig, Message: "dingTalk: " + fmt.Sprintf(format, args...)}
}

// patience is how long the gateway has.
const patience = 30 * time.Second

func tell(c config.DingTalkConfig, to, setting string, recipients []string, given []config.Digest) error {
	if c.Url == "" {
		return wrong("Url is required")
	}
	if len(recipients) == 0 {
		return wrong("%s is required", setting)
	}
	var texts []string
	if c.Message != "" {
		texts = append(texts, c.Message)
	}
	for _, digest := range given {
		texts = append(texts, digest.Text)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	message := ceiba.Message{Body: []byte(strings.Join(texts, "\n")), Recipients: recipients}
	for {
		gateway, err := gatewayOf(ctx, c.Url, to)
		if err != nil {
			return err
		}
		// A shutdown of the whole library closes it too.
		if _, err = gateway.SendMessage(ctx, message); !errors.Is(err, ceiba.ErrClosed) || ctx.Err() != nil {
			return err
		}
		forget(gateway)
	}
}

var gateways struct {
	sync.Mutex
	open map[string]*ceiba.Producer
}

// gatewayOf is the one producer for this address.
func gatewayOf(ctx context.Context, url, to string) (*ceiba.Producer, error) {
	sum := sha256.Sum256([]byte(url))
	id := "dingtalk " + to + " " + hex.EncodeToString(sum[:8])
	gateways.Lock()
	defer gateways.Unlock()
	if p := gateways.open[id]; p != nil {
		return p, nil
	}
	p, err := ceiba.OpenProducer(ctx, ceiba.Config{ID: id, Lazy: true, FailWhenDisconnected: true, Provider: section{
		Type: "dingtalk", Via: "gateway", URL: ceiba.SecretText(url), To: to,
	}})
	if err != nil {
		return nil, err
	}
	if gateways.open == nil {
		gateways.open = map[string]*ceiba.Producer{}
	}
	gateways.open[id] = p
	return p, nil
}

type section struct {
	Type string       `json:"type"`
	Via  string       `json:"via"`
	URL  ceiba.Secret `json:"url"`
	To   string       `json:"to"`
}

func forget(p *ceiba.Producer) {
	gateways.Lock()
	defer gateways.Unlock()
	if gateways.open[p.ID()] == p {
		delete(gateways.open, p.ID())
	}
}
