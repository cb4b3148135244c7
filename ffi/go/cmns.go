package ceiba

// #include "shim.h"
import "C"

// cMnsAdmin blocks the thread until the command has been carried out.
func cMnsAdmin(config, command string, timeout int64) (string, *Error) {
	c, n := chars(config)
	o, m := chars(command)
	return takenText(C.shim_mns_admin(c, n, o, m, C.int64_t(timeout)))
}
