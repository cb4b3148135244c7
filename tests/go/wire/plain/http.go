package plain

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Web makes the HTTP calls of the wire.
type Web struct {
	Addr   string
	Secret string
}

var webClient = http.Client{Timeout: 15 * time.Second}

// maxReply bounds what is read of a reply.
const maxReply = 64 << 20

// Post sends a form and returns the body of the reply, whatever its code.
func (w Web) Post(ctx context.Context, path string, form url.Values) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+w.Addr+path, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("secretKey", w.Secret)
	reply, err := webClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(io.LimitReader(reply.Body, maxReply))
	if err != nil {
		return nil, err
	}
	if reply.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("plain: %s: HTTP status %d: %s", path, reply.StatusCode, body)
	}
	return body, nil
}

// Send sends one message over HTTP and returns its code.
func (w Web) Send(ctx context.Context, topic, data string, delay int64) (string, error) {
	form := url.Values{"topic": {topic}, "messageData": {data}, "delayTime": {strconv.FormatInt(delay, 10)}}
	body, err := w.Post(ctx, "/Producer/Send", form)
	if err != nil {
		return "", err
	}
	var reply struct {
		Code int             `json:"code"`
		Msg  json.RawMessage `json:"msg"`
	}
	if err := json.Unmarshal(body, &reply); err != nil {
		return "", err
	}
	if reply.Code != 0 {
		return "", fmt.Errorf("plain: send refused: %s", reply.Msg)
	}
	var code string
	err = json.Unmarshal(reply.Msg, &code)
	return code, err
}

// Counts is the reply of CountMessage.
type Counts struct {
	All        int64 `json:"all"`
	Consumed   int64 `json:"consumed"`
	Delay      int64 `json:"delay"`
	Unconsumed int64 `json:"unconsumed"`
}

// Count asks how many messages the server holds, of all topics.
func (w Web) Count(ctx context.Context) (Counts, error) {
	body, err := w.Post(ctx, "/Console/CountMessage", nil)
	if err != nil {
		return Counts{}, err
	}
	var reply struct {
		Data Counts `json:"data"`
	}
	err = json.Unmarshal(body, &reply)
	return reply.Data, err
}

// List asks for the messages of one topic with one status (3: all), created in the last hour. Bodies are not in it.
func (w Web) List(ctx context.Context, topic string, status int) ([]Delivery, error) {
	const layout = "2006-01-02 15:04:05"
	now := time.Now()
	form := url.Values{
		"topic":     {topic},
		"status":    {strconv.Itoa(status)},
		"startTime": {now.Add(-time.Hour).Format(layout)},
		"endTime":   {now.Add(time.Hour).Format(layout)},
	}
	body, err := w.Post(ctx, "/Console/GetMessageList", form)
	if err != nil {
		return nil, err
	}
	var reply struct {
		Data []Delivery `json:"data"`
	}
	err = json.Unmarshal(body, &reply)
	return reply.Data, err
}
