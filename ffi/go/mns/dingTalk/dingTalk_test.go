package dingTalk

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"sync"
	"testing"

	"ceiba"
	"ceiba/mns/config"
)

// gateway keeps the forms that it gets.
type gateway struct {
	mu     sync.Mutex
	forms  []url.Values
	status int
}

func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" || r.ParseForm() != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	g.forms = append(g.forms, r.PostForm)
	w.WriteHeader(g.status)
}

func TestUsersAndGroupsAreTold(t *testing.T) {
	g := &gateway{status: http.StatusOK}
	server := httptest.NewServer(g)
	defer server.Close()
	digest := config.Digest{Text: "1 message of `t` was given up:\n7, 5 attempts: timeout: late\n  body & 木"}
	c := config.DingTalkConfig{Url: server.URL + "/v1d0/dingtalk/message?token=x", UserList: "a1, b2", GroupId: "g3", Message: "测试！！！"}
	for _, tell := range []config.DigestFunc{SendMessageToUser(c), SendMessageToGroup(c)} {
		if err := tell(); err != nil {
			t.Fatal(err)
		}
		if err := tell(digest); err != nil {
			t.Fatal(err)
		}
	}
	if err := ceiba.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	c.Message = ""
	if err := SendMessageToUser(c)(digest); err != nil {
		t.Fatal(err)
	}
	wanted := []url.Values{
		{"useridList": {"a1,b2"}, "message": {"测试！！！"}},
		{"useridList": {"a1,b2"}, "message": {"测试！！！\n" + digest.Text}},
		{"_id": {"g3"}, "message": {"测试！！！"}},
		{"_id": {"g3"}, "message": {"测试！！！\n" + digest.Text}},
		{"useridList": {"a1,b2"}, "message": {digest.Text}},
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if !reflect.DeepEqual(g.forms, wanted) {
		t.Errorf("%v", g.forms)
	}
}

// Its ancestor ended the process, and took any answer for success.
func TestWhatIsWrongIsAnError(t *testing.T) {
	g := &gateway{status: http.StatusInternalServerError}
	server := httptest.NewServer(g)
	defer server.Close()
	for name, tell := range map[string]config.DigestFunc{
		"Url":      SendMessageToUser(config.DingTalkConfig{UserList: "a"}),
		"UserList": SendMessageToUser(config.DingTalkConfig{Url: server.URL, UserList: " ,"}),
		"GroupId":  SendMessageToGroup(config.DingTalkConfig{Url: server.URL}),
		"`url`":    SendMessageToGroup(config.DingTalkConfig{Url: "nonsense", GroupId: "g"}),
	} {
		if err := tell(); !errors.Is(err, ceiba.ErrInvalidConfig) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	err := SendMessageToGroup(config.DingTalkConfig{Url: server.URL, GroupId: "g", Message: "x"})()
	var failed *ceiba.Error
	if !errors.As(err, &failed) || failed.Kind != ceiba.ErrUnavailable {
		t.Error(err)
	}
}
