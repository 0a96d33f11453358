package model
import ("testing";"time";"fmt";"github.com/veratune/veratune/internal/testutil";"github.com/veratune/veratune/vera")
func TestSpeed(t *testing.T){
 for _,c:=range []Compute{ComputeF32,ComputeBF16}{ 
 o:=Default(); o.Compute=c; o.Recompute=RecomputeNone
 m:=open(t,testutil.SmolLM2(t),o)
 cfg:=vera.Default()
 a,err:=vera.New(cfg,m.Base()); if err!=nil{t.Fatal(err)}
 if err:=m.Attach(a);err!=nil{t.Fatal(err)}
 n:=256; var tok,tg []int32; var ls []int
 for s:=0;s<4;s++{ for i:=0;i<n;i++{tok=append(tok,int32((i*7919+s*13)%49152)); x:=int32(-1); if i>n/2{x=int32(i)}; tg=append(tg,x)}; ls=append(ls,n)}
 g:=make([]float32,len(a.Params))
 for k:=0;k<3;k++{ t0:=time.Now(); m.Gradients(tok,tg,ls,0,g); d:=time.Since(t0); fmt.Println(c,d, float64(4*n)/d.Seconds(),"tok/s")}
 m.Close()
 }
}
