package relationship

// Fact is something that happened, before it is an event.
type Fact struct{ placeholder string }

func resyncScheduled(r Record) Fact                { return Fact{} }
func resyncStarted(r Record, i int) Fact           { return Fact{} }
func passRestarted(r Record, evidence string) Fact { return Fact{} }
func suspended(r Record) Fact                      { return Fact{} }
func resumed(r Record) Fact                        { return Fact{} }
func resyncInterrupted(r Record, f any) Fact       { return Fact{} }
func resyncRecovered(r Record, n int) Fact         { return Fact{} }
func resyncCommitted(r Record) Fact                { return Fact{} }
func resyncFinished(r Record, i int) Fact          { return Fact{} }
func resyncRequired(r Record) Fact                 { return Fact{} }
func settingsChanged(r Record) Fact                { return Fact{} }
func created(r Record) Fact                        { return Fact{} }
func removed(r Record) Fact                        { return Fact{} }
