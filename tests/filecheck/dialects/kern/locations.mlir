// RUN: quartic-opt %s --print-debuginfo | quartic-opt --print-debuginfo | filecheck %s

// CHECK: } loc(fused["conv | net.conv"("net.py":3:0), "relu | net.act"("net.py":4:0)])
%x = qnn.constant dense<1.0> : tensor<2x3xf32> : tensor<2x3xf32>
%0 = kern.kernel "relu" (%a = %x) : (tensor<2x3xf32>) -> tensor<2x3xf32> {
  %1 = qnn.relu %a : tensor<2x3xf32>
  kern.yield %1 : tensor<2x3xf32>
} loc(fused["conv | net.conv"("net.py":3:0), "relu | net.act"("net.py":4:0)])
