module ceiba.test/go-mns

go 1.25

require (
	ceiba v0.0.0
	github.com/globalsign/mgo v0.0.0-20181015135952-eeefdecb41b8
	github.com/robfig/cron/v3 v3.0.1
)

require gopkg.in/check.v1 v1.0.0-20201130134442-10cb98267c6c // indirect

replace ceiba => ../../../ffi/go
