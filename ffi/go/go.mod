module ceiba

go 1.26
