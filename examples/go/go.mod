module examples

go 1.25

require ceiba v0.0.0

replace ceiba => ../../ffi/go
