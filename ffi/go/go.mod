module ceiba

go 1.25
