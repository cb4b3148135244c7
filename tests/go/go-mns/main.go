// A program that was written for go-mns, after a change of its imports: it publishes to a topic, keeps what it could not
// publish, tries that again by the clock, and tells people of what failed for the fifth time.
//
//	go-mns send     publishes one message
//	go-mns retry    tries what is stored, until standard input ends
//
// The settings come from the environment, so that a test can name its own service.
package main

import (
	"fmt"
	"io"
	"os"

	"github.com/globalsign/mgo/bson"
	"github.com/robfig/cron/v3"

	"ceiba/mns/config"
	"ceiba/mns/dingTalk"
	"ceiba/mns/topic"
)

func options() config.MNSConfig {
	return config.MNSConfig{
		Endpoint:        os.Getenv("MNS_ENDPOINT"),
		AccessKeyId:     os.Getenv("MNS_KEY_ID"),
		AccessKeySecret: os.Getenv("MNS_KEY_SECRET"),
		TopicName:       os.Getenv("MNS_TOPIC"),
		MongoURI:        os.Getenv("MNS_MONGO_URI"),
		Store:           os.Getenv("MNS_STORE"),
	}
}

func sendMessageToTopic() {
	options := options()
	data := bson.M{
		"task_id": bson.NewObjectId().Hex(),
		"game_id": "123",
	}
	resp, err := topic.NewMNSTopic(&options).SendMessage(data)
	if err != nil {
		fmt.Println("failed:", err)
	} else {
		fmt.Println("sent:", resp.MessageId)
	}
}

func crontab() {
	c := cron.New(cron.WithSeconds())
	_, err := c.AddFunc(os.Getenv("MNS_SCHEDULE"), func() {
		options := options()
		topic.NewMNSTopic(&options).Retry(5, dingTalk.SendMessageToUser(config.DingTalkConfig{
			Url:      os.Getenv("DINGTALK_URL"),
			UserList: "5ec1f8504c0c2f0001240063",
			Message:  "测试！！！",
		}))
	})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	c.Start()
}

func main() {
	switch {
	case len(os.Args) == 2 && os.Args[1] == "send":
		sendMessageToTopic()
	case len(os.Args) == 2 && os.Args[1] == "retry":
		crontab()
		_, _ = io.Copy(io.Discard, os.Stdin)
	default:
		fmt.Println("usage: go-mns send|retry")
		os.Exit(2)
	}
}
