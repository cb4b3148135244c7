package topic_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"ceiba"
	"ceiba/mns/config"
	"ceiba/mns/dingTalk"
	"ceiba/mns/topic"
)

func Example() {
	folder, err := os.MkdirTemp("", "ceiba")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(folder)
	options := config.MNSConfig{
		Endpoint:        "http://127.0.0.1:9/", // nobody listens there
		AccessKeyId:     "id",
		AccessKeySecret: "secret",
		TopicName:       "MyTopic",
		Store:           "sqlite:" + filepath.Join(folder, "mns.db"), // or MongoURI: "mongodb://localhost/admin"
	}
	_, err = topic.NewMNSTopic(&options).SendMessage(map[string]string{"game_id": "123"})
	fmt.Println("stored:", errors.Is(err, topic.ErrStored))

	// By a scheduler, every ten minutes; what fails for the fifth time is told of.
	err = topic.NewMNSTopic(&options).Retry(5, dingTalk.SendMessageToUser(config.DingTalkConfig{
		Url: "https://gateway.example.com/v1d0/dingtalk/message", UserList: "5ec1f8504c0c2f0001240063", Message: "MNS",
	}))
	fmt.Println(err)
	for row, err := range ceiba.OpenOutbox(options.Store).Rows(context.Background(), ceiba.ListOptions{}) {
		fmt.Println(row.Short, row.Attempts, err)
	}
	// Output:
	// stored: true
	// <nil>
	// {"game_id":"123"} 1 <nil>
}
