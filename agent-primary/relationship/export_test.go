package relationship

// Critical are the reasons that are Critical at once.
var Critical = critical
